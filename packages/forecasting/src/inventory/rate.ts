/**
 * Rates of publications by empirical Bayes: a send's outcome is rate × exposure × factor, its variance `counting` times that of
 * counting plus `dispersion`·rate² for what varies from send to send. Rates of publications spread around their cell's with variance
 * `spread`·rate² (linear Bayes, Bühlmann & Straub 1970). Weekday factors are common to all.
 */
export interface RateModel {
  /** Network's rate. */
  readonly base: number;
  /** [nCells] rates of cells, shrunk to the network's. */
  readonly cells: Float64Array;
  /** [7] by local weekday, of weighted mean 1. */
  readonly weekday: Float64Array;
  /** How much more counts vary than independent people would make them. */
  readonly counting: number;
  readonly dispersion: number;
  readonly spread: number;
  /** Counts are at most the exposure: their variance is binomial. */
  readonly binomial: boolean;
}

/** Outcomes of past sends, grouped by publication: rows of publication p are offsets[p] … offsets[p + 1). */
export interface RateData {
  readonly nPublications: number;
  readonly offsets: Uint32Array;
  readonly count: Float64Array;
  readonly exposure: Float64Array;
  readonly weekday: Uint8Array;
  /** [nPublications] */
  readonly cell: Uint8Array;
  readonly nCells: number;
}

/** What has come so far of a send that is not finished: its exposure is that of the share that should have come. */
export interface EarlyOutcome {
  readonly count: number;
  readonly exposure: number;
  readonly weekday: number;
  /** Relative variance of that share. */
  readonly dispersion: number;
}

export interface RateEstimate {
  readonly rate: number;
  /** Variance of the estimate. */
  readonly variance: number;
}

type Counting = Pick<RateModel, 'binomial' | 'counting'>;

const independent = ({ binomial }: Pick<Counting, 'binomial'>, rate: number, exposure: number) =>
  (rate * (binomial ? Math.max(1e-6, 1 - rate) : 1)) / exposure;

const countVariance = (model: Counting, rate: number, exposure: number) =>
  model.counting * independent(model, rate, exposure);

/** Rate of one publication from its rows [from, to), its unfinished sends and what is known of others. O(rows) */
export function estimateRate(
  model: RateModel,
  data: Pick<RateData, 'count' | 'exposure' | 'weekday'>,
  rows: {
    readonly from: number;
    readonly to: number;
    readonly cell: number;
    readonly early?: readonly EarlyOutcome[];
  },
): RateEstimate {
  const prior = model.cells[rows.cell]!;
  let rate = prior;
  let precision = 0;
  // Weights depend on the rate: three rounds settle.
  for (let round = 0; round < 3; round++) {
    precision = 1 / Math.max(1e-18, model.spread * prior * prior);
    let sum = precision * prior;
    const add = (count: number, effective: number, dispersion: number): void => {
      if (!(effective > 0)) return;
      const weight = 1 / (countVariance(model, rate, effective) + dispersion * rate * rate + 1e-18);
      precision += weight;
      sum += (weight * count) / effective;
    };
    for (let i = rows.from; i < rows.to; i++) {
      const effective = data.exposure[i]! * model.weekday[data.weekday[i]!]!;
      add(data.count[i]!, effective, model.dispersion);
    }
    for (const { count, exposure, weekday, dispersion } of rows.early ?? []) {
      add(count, exposure * model.weekday[weekday]!, model.dispersion + dispersion);
    }
    rate = Math.max(sum / precision, prior * 1e-3);
  }
  return { rate, variance: 1 / precision };
}

const WEEKDAY_STRENGTH = 200;

/**
 * Network-level parameters from all finished sends: rates by cell, weekday factors by alternating means, dispersion and spread
 * by moments. O(rounds · rows)
 */
export function fitRates(data: RateData, binomial: boolean): RateModel {
  const { nPublications, offsets, count, exposure } = data;
  let counts = 0;
  let exposures = 0;
  const cellCounts = new Float64Array(data.nCells);
  const cellExposures = new Float64Array(data.nCells);
  // Publications count alike up to a cap: the largest list does not say how the others are read.
  for (let p = 0; p < nPublications; p++) {
    let c = 0;
    let e = 0;
    for (let i = offsets[p]!; i < offsets[p + 1]!; i++) {
      c += count[i]!;
      e += exposure[i]!;
    }
    if (!(e > 0)) continue;
    const weight = Math.min(1, e / 5000);
    counts += (weight * c) / e;
    exposures += weight;
    cellCounts[data.cell[p]!]! += (weight * c) / e;
    cellExposures[data.cell[p]!]! += weight;
  }
  const base = exposures > 0 ? Math.max(counts / exposures, 1e-9) : 1e-9;
  const raw = cellCounts.map((c, i) => (cellExposures[i]! > 0 ? c / cellExposures[i]! : base));
  let model: RateModel = {
    base,
    cells: raw,
    weekday: new Float64Array(7).fill(1),
    counting: 1,
    dispersion: 0.01,
    spread: 0.1,
    binomial,
  };
  for (let round = 0; round < 4; round++) {
    const cells = shrinkCells({ raw, weights: cellExposures, base, spread: model.spread });
    model = { ...model, cells };
    model = { ...model, ...refine(model, data) };
  }
  return model;
}

/**
 * Rates of cells, shrunk to the network's by how much cells differ beyond the chance of who is in them (DerSimonian & Laird 1986).
 * @param o `weights` publications of each cell
 */
function shrinkCells(o: {
  readonly raw: Float64Array;
  readonly weights: Float64Array;
  readonly base: number;
  readonly spread: number;
}): Float64Array {
  const { raw, weights, base, spread } = o;
  let sum = 0;
  let squares = 0;
  let excess = 0;
  raw.forEach((rate, c) => {
    const weight = weights[c]!;
    sum += weight;
    squares += weight * weight;
    excess += weight * (rate / base - 1) ** 2;
  });
  const scale = sum - squares / Math.max(sum, 1e-12);
  const nCells = weights.reduce((n, w) => n + (w > 0 ? 1 : 0), 0);
  const between = scale > 0 ? Math.max(0, (excess - (nCells - 1) * spread) / scale) : 0;
  return raw.map((rate, c) => {
    const trust = between / (between + spread / Math.max(weights[c]!, 1e-12));
    return base + (between > 0 ? trust : 0) * (rate - base);
  });
}

function refine(
  model: RateModel,
  data: RateData,
): Pick<RateModel, 'weekday' | 'counting' | 'dispersion' | 'spread'> {
  const { nPublications, offsets, count, exposure } = data;
  const dayTop = new Float64Array(7);
  const dayBottom = new Float64Array(7);
  const squares = new Squares();
  let between = 0;
  let betweenWeight = 0;
  for (let p = 0; p < nPublications; p++) {
    const from = offsets[p]!;
    const to = offsets[p + 1]!;
    const n = to - from;
    if (n === 0) continue;
    const cell = data.cell[p]!;
    const { rate } = estimateRate(model, data, { from, to, cell });
    // The publication's own mean, by the same weights, without prior.
    let weights = 0;
    let sum = 0;
    for (let i = from; i < to; i++) {
      const effective = exposure[i]! * model.weekday[data.weekday[i]!]!;
      if (!(effective > 0)) continue;
      const w = 1 / (countVariance(model, rate, effective) + model.dispersion * rate * rate);
      weights += w;
      sum += (w * count[i]!) / effective;
    }
    if (!(weights > 0)) continue;
    const own = sum / weights;
    for (let i = from; i < to; i++) {
      const effective = exposure[i]! * model.weekday[data.weekday[i]!]!;
      if (!(effective > 0)) continue;
      const variance = countVariance(model, rate, effective);
      const w = 1 / (variance + model.dispersion * rate * rate);
      if (n >= 2 && own > 0) {
        const day = data.weekday[i]!;
        dayTop[day]! += w * rate * (count[i]! / exposure[i]!);
        dayBottom[day]! += w * rate * own;
      }
      if (n >= 3) {
        const residual = count[i]! / effective - own;
        // A mean of n weighted values takes its share of the residual.
        const shrink = 1 - w / weights;
        if (shrink > 0.05) {
          squares.add(
            (residual * residual) / shrink / (rate * rate),
            independent(model, rate, effective) / (rate * rate),
            (w * rate * rate) ** 2,
          );
        }
      }
    }
    const prior = model.cells[cell]!;
    const noise = 1 / weights;
    const weight = 1 / (noise / (prior * prior) + model.spread);
    between += weight * (((own - prior) ** 2 - noise) / (prior * prior));
    betweenWeight += weight;
  }
  const weekday = new Float64Array(7);
  for (let d = 0; d < 7; d++) {
    weekday[d] =
      dayBottom[d]! > 0 ? (dayTop[d]! + WEEKDAY_STRENGTH) / (dayBottom[d]! + WEEKDAY_STRENGTH) : 1;
  }
  return {
    weekday,
    ...(squares.split(model.binomial) ?? model),
    spread: betweenWeight > 0 ? Math.min(4, Math.max(1e-4, between / betweenWeight)) : model.spread,
  };
}

/** Most that counts vary beyond independence. */
const MAX_COUNTING = 20;

/**
 * Splits what varies from send to send into a multiple of counting noise, which large lists outgrow, and a share of the rate, which
 * they do not: weighted least squares of squared residuals on both.
 */
class Squares {
  #xx = 0;
  #x = 0;
  #n = 0;
  #xy = 0;
  #y = 0;

  /** @param y squared relative residual, @param x relative variance that independent counting would bring */
  add(y: number, x: number, weight: number): void {
    this.#xx += weight * x * x;
    this.#x += weight * x;
    this.#n += weight;
    this.#xy += weight * x * y;
    this.#y += weight * y;
  }

  /** @param isFree whether counts may vary otherwise than independent ones */
  split(isFree: boolean): Pick<RateModel, 'counting' | 'dispersion'> | undefined {
    if (!(this.#n > 0)) return undefined;
    const determinant = this.#xx * this.#n - this.#x * this.#x;
    let counting = 1;
    if (isFree && determinant > 1e-9 * this.#xx * this.#n) {
      counting = (this.#xy * this.#n - this.#x * this.#y) / determinant;
      // Negative dispersion is none: counting explains all.
      if (this.#y < counting * this.#x) counting = this.#xy / this.#xx;
      counting = Math.min(MAX_COUNTING, Math.max(1, counting));
    }
    const dispersion = (this.#y - counting * this.#x) / this.#n;
    return { counting, dispersion: Math.min(4, Math.max(1e-6, dispersion)) };
  }
}
