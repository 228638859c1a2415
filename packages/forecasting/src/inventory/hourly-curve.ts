import { forecastingError } from '../errors.js';
import { nelderMead } from '../minimise.js';

/** Observed events by hours since the send, and when it went out. */
export interface HourlyCounts {
  readonly nSends: number;
  /** Hours that each send was watched; a row of `counts` may be observed in part. */
  readonly nHours: number;
  /** float64 [nSends × nHours], row-major; NaN = not observed (yet) */
  readonly counts: Float64Array;
  /** [nSends] local hour of sending */
  readonly localHour: Uint8Array;
  /** [nSends] dense group, such as a publication, below nGroups */
  readonly group: Uint32Array;
  readonly nGroups: number;
}

/** Delay ln hours ~ N(mu, sigma), times the habit of the local hour in which the event falls. */
interface DelayCurve {
  readonly mu: number;
  readonly sigma: number;
}

const HOURS = 24;
/**
 * Share of a send's events in each hour since sending, from a log-normal delay times a daily rhythm (GetResponse's published
 * delays fit a log-normal within half a point). The global curve is fitted by multinomial likelihood; a group that differs
 * moves its ln-hour mean, shrunk towards the global one by how much groups differ.
 */
export class HourlyCurve {
  readonly mu: number;
  readonly sigma: number;
  /** [24] by local hour, mean 1 */
  readonly rhythm: Float64Array;
  /** [nGroups] shift of the ln-hour mean of each group */
  readonly shifts: Float64Array;
  readonly #nHours: number;

  private constructor(o: {
    mu: number;
    sigma: number;
    rhythm: Float64Array;
    shifts: Float64Array;
    nHours: number;
  }) {
    this.mu = o.mu;
    this.sigma = o.sigma;
    this.rhythm = o.rhythm;
    this.shifts = o.shifts;
    this.#nHours = o.nHours;
  }

  /**
   * Alternates delay (Nelder–Mead), rhythm (observed over expected by local hour) and group shifts. O(rounds · 24 · nHours)
   * after one pass over the counts.
   * @throws WAGGLE_FORECASTING_SHAPE, WAGGLE_FORECASTING_TOO_FEW_SENDS without a single event
   */
  static fit(data: HourlyCounts, options: { readonly rounds?: number } = {}): HourlyCurve {
    const { nSends, nHours, counts, localHour, group } = data;
    if (
      counts.length !== nSends * nHours ||
      localHour.length !== nSends ||
      group.length !== nSends
    ) {
      throw forecastingError('WAGGLE_FORECASTING_SHAPE', 'hourly columns differ in length');
    }
    const pooled = pool(data);
    if (!(pooled.total > 0)) {
      throw forecastingError('WAGGLE_FORECASTING_TOO_FEW_SENDS', 'there is no event in any hour');
    }
    let delay: DelayCurve = { mu: 1.4, sigma: 2.3 };
    let rhythm = new Float64Array(HOURS).fill(1);
    for (let round = 0; round < (options.rounds ?? 4); round++) {
      const found = nelderMead(
        (p) => -logLikelihood({ mu: p[0]!, sigma: Math.exp(p[1]!) }, rhythm, pooled),
        Float64Array.of(delay.mu, Math.log(delay.sigma)),
        Float64Array.of(0.3, 0.1),
        { maxEvaluations: 80, tolerance: 1e-10 },
      );
      delay = { mu: found.x[0]!, sigma: Math.exp(found.x[1]!) };
      rhythm = refineRhythm(delay, rhythm, pooled);
    }
    const shifts = groupShifts(delay, rhythm, data);
    return new HourlyCurve({ ...delay, rhythm, shifts, nHours });
  }

  /**
   * Shares of the hours since sending, of sum 1 over the hours that the curve was fitted on.
   * @param group −1 or a group without events: the global curve
   * @returns float64 [nHours]; O(nHours)
   */
  shares(localHour: number, group = -1): Float64Array {
    const shift = group >= 0 ? (this.shifts[group] ?? 0) : 0;
    return hourShares(
      { mu: this.mu + shift, sigma: this.sigma },
      this.rhythm,
      localHour,
      this.#nHours,
    );
  }
}

function hourShares(
  { mu, sigma }: DelayCurve,
  rhythm: Float64Array,
  localHour: number,
  nHours: number,
): Float64Array {
  const out = new Float64Array(nHours);
  let total = 0;
  let below = 0;
  for (let h = 0; h < nHours; h++) {
    const above = normalCdf((Math.log(h + 1) - mu) / sigma);
    const habit = rhythm[(localHour + h) % HOURS]!;
    out[h] = (above - below) * habit;
    total += out[h]!;
    below = above;
  }
  for (let h = 0; h < nHours; h++) out[h]! /= total;
  return out;
}

interface Pooled {
  /** float64 [24 × nHours] events by local hour of sending and hours since, of sends observed to the end */
  readonly counts: Float64Array;
  readonly nHours: number;
  readonly total: number;
}

/** Sends that are not observed to the end would say that events come early; they are left out. */
function pool({ nSends, nHours, counts, localHour }: HourlyCounts): Pooled {
  const out = new Float64Array(HOURS * nHours);
  let total = 0;
  for (let s = 0; s < nSends; s++) {
    let own = 0;
    for (let h = 0; h < nHours; h++) own += counts[s * nHours + h]!;
    if (!(own > 0)) continue;
    // The largest sends do not speak for the others.
    const weight = 1 / Math.max(1, own / 500);
    for (let h = 0; h < nHours; h++) {
      const value = weight * counts[s * nHours + h]!;
      out[localHour[s]! * nHours + h]! += value;
      total += value;
    }
  }
  return { counts: out, nHours, total };
}

function logLikelihood(delay: DelayCurve, rhythm: Float64Array, data: Pooled): number {
  let sum = 0;
  for (let hour = 0; hour < HOURS; hour++) {
    const shares = hourShares(delay, rhythm, hour, data.nHours);
    for (let h = 0; h < data.nHours; h++) {
      const count = data.counts[hour * data.nHours + h]!;
      if (count > 0) sum += count * Math.log(Math.max(1e-12, shares[h]!));
    }
  }
  return sum;
}

function refineRhythm(
  delay: DelayCurve,
  rhythm: Float64Array,
  data: Pooled,
): Float64Array<ArrayBuffer> {
  const observed = new Float64Array(HOURS).fill(20);
  const expected = new Float64Array(HOURS).fill(20);
  for (let hour = 0; hour < HOURS; hour++) {
    const shares = hourShares(delay, rhythm, hour, data.nHours);
    let own = 0;
    for (let h = 0; h < data.nHours; h++) own += data.counts[hour * data.nHours + h]!;
    for (let h = 0; h < data.nHours; h++) {
      const local = (hour + h) % HOURS;
      observed[local]! += data.counts[hour * data.nHours + h]!;
      expected[local]! += own * shares[h]!;
    }
  }
  const next = Float64Array.from(rhythm, (r, i) => (r * observed[i]!) / expected[i]!);
  const mean = next.reduce((sum, r) => sum + r, 0) / HOURS;
  return next.map((r) => r / mean);
}

/**
 * One Newton step of each group's likelihood in its shift, then shrunk: groups differ with a variance found by moments
 * (DerSimonian & Laird 1986).
 */
function groupShifts(delay: DelayCurve, rhythm: Float64Array, data: HourlyCounts): Float64Array {
  const { nHours } = data;
  const step = 0.05;
  const at = (shift: number) =>
    Array.from({ length: HOURS }, (_, hour) =>
      hourShares({ ...delay, mu: delay.mu + shift }, rhythm, hour, nHours).map((s) =>
        Math.log(Math.max(1e-12, s)),
      ),
    );
  const [down, here, up] = [at(-step), at(0), at(step)];
  const slopes = new Float64Array(data.nGroups);
  const bends = new Float64Array(data.nGroups);
  for (let s = 0; s < data.nSends; s++) {
    const hour = data.localHour[s]!;
    const g = data.group[s]!;
    let slope = 0;
    let bend = 0;
    for (let h = 0; h < nHours; h++) {
      const count = data.counts[s * nHours + h]!;
      const low = down[hour]![h]!;
      const high = up[hour]![h]!;
      slope += (count * (high - low)) / (2 * step);
      bend -= (count * (high - 2 * here[hour]![h]! + low)) / (step * step);
    }
    if (Number.isFinite(slope) && Number.isFinite(bend)) {
      slopes[g]! += slope;
      bends[g]! += bend;
    }
  }
  const raw = slopes.map((s, g) => (bends[g]! > 0 ? s / bends[g]! : 0));
  let weights = 0;
  let weightSquares = 0;
  let excess = 0;
  let groups = 0;
  for (let g = 0; g < data.nGroups; g++) {
    if (!(bends[g]! > 0)) continue;
    groups++;
    weights += bends[g]!;
    weightSquares += bends[g]! ** 2;
    excess += bends[g]! * raw[g]! ** 2;
  }
  const scale = weights - weightSquares / Math.max(weights, 1e-12);
  const variance = scale > 0 ? Math.max(0, (excess - groups) / scale) : 0;
  return raw.map((shift, g) =>
    bends[g]! > 0 && variance > 0 ? (shift * variance) / (variance + 1 / bends[g]!) : 0,
  );
}

/** Φ(z) by Abramowitz & Stegun 7.1.26, |error| < 1.5e-7. */
function normalCdf(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const erf =
    1 -
    t *
      (0.254829592 +
        t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) *
      Math.exp(-x * x);
  return z >= 0 ? (1 + erf) / 2 : (1 - erf) / 2;
}
