import { DAY_MS, HOUR_MS, type SendHistory } from '@waggle/core';
import { Arrival } from './arrival.js';
import { estimateSize, fitGrowth, type GrowthModel, type SizeReports } from './list-size.js';
import { type EarlyOutcome, estimateRate, fitRates, type RateModel } from './rate.js';

export const INVENTORY_TARGETS = ['delivered', 'opens', 'clicks'] as const;
export type InventoryTarget = (typeof INVENTORY_TARGETS)[number];

/**
 * Features of the base forecast, beside the columns that a caller passes. How much is known by now is not among them: it grows with
 * the days alone, so that what is learnt from it on the first ones is wrong on those that are forecast.
 */
export const BASE_FEATURES = [
  'log_size',
  'size_deviation',
  'log_rate_ratio',
  'last_ratio',
  'days_since_outcome',
  'list_age_reports',
  'cadence_per_week',
  'local_weekday',
  'local_hour',
  'n_slots',
] as const;

/** What a careful bookkeeper expects of each send, knowing only what was known at its as-of time. */
export interface InventoryBase {
  readonly target: InventoryTarget;
  /** [nSends] expected count; 0 where there cannot be any (clicks without ad places), NaN where nothing is known. */
  readonly mean: Float64Array;
  /** [nSends] standard deviation of the count around it. */
  readonly deviation: Float64Array;
  /** float32 [nSends × BASE_FEATURES.length], row-major, NaN = unknown. */
  readonly features: Float32Array;
}

/** Cadence class × size class: where a publication without history starts. */
const CADENCE_BOUNDS = [0.75, 1.5, 4.5];
const SIZE_BOUNDS = [500, 2_000, 10_000, 50_000];
const N_CELLS = (CADENCE_BOUNDS.length + 1) * (SIZE_BOUNDS.length + 1);

const classOf = (bounds: readonly number[], value: number): number => {
  let i = 0;
  while (i < bounds.length && value > bounds[i]!) i++;
  return i;
};

/** Number of a publication's cell. */
export function inventoryCell(cadencePerWeek: number, subscribers: number): number {
  return (
    classOf(CADENCE_BOUNDS, cadencePerWeek) * (SIZE_BOUNDS.length + 1) +
    classOf(SIZE_BOUNDS, subscribers)
  );
}

const MAX_SLOTS = 16;
/** Finished sends of a network below which nothing is forecast: rates of nobody are rates of nothing. */
const MIN_OUTCOMES = 30;

/** What so many ad places bring relative to one; all the same where places do not matter. */
const slotFactor = (slots: Float64Array | undefined, nSlots: number): number =>
  slots === undefined ? 1 : slots[Math.min(MAX_SLOTS, nSlots)]!;

/** Rows of each publication, in order of time. */
function groupRows(history: SendHistory): Uint32Array[] {
  const rows: number[][] = Array.from({ length: history.nPublications }, () => []);
  for (let i = 0; i < history.nSends; i++) rows[history.publication[i]!]!.push(i);
  return rows.map((own) => Uint32Array.from(own));
}

interface Reports {
  readonly atMs: number[];
  readonly knownMs: number[];
  readonly size: number[];
}

/** List sizes of each publication: what it reported, and whom its sends went to. */
function groupReports(history: SendHistory, rows: readonly Uint32Array[]): Reports[] {
  const all = rows.map((own) =>
    Array.from(own)
      .filter((i) => history.sentMs[i]! > 0 && history.recipients[i]! > 0)
      .map((i) => ({
        at: history.plannedMs[i]!,
        known: history.sentMs[i]!,
        size: history.recipients[i]!,
      })),
  );
  const { publication, atMs, subscribers } = history.lists;
  for (let i = 0; i < publication.length; i++) {
    if (subscribers[i]! > 0) {
      all[publication[i]!]!.push({ at: atMs[i]!, known: atMs[i]!, size: subscribers[i]! });
    }
  }
  return all.map((own) => {
    own.sort((a, b) => a.known - b.known || a.at - b.at);
    return {
      atMs: own.map((r) => r.at),
      knownMs: own.map((r) => r.known),
      size: own.map((r) => r.size),
    };
  });
}

/** How many of ascending times are at most `limit`. */
function countUntil(times: ArrayLike<number>, limit: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (times[mid]! <= limit) low = mid + 1;
    else high = mid;
  }
  return low;
}

/** What the network as a whole teaches, as of one moment. */
interface Network {
  /** Finished sends that it was learnt from. */
  readonly nOutcomes: number;
  readonly growth: GrowthModel;
  readonly delivery: RateModel;
  readonly rate: RateModel;
  /** [MAX_SLOTS + 1] clicks of a send with so many ad places, relative to one. */
  readonly slots: Float64Array;
}

/**
 * Base forecasts of every send of a history, each with what was known `leadMs` before its planned time: the list by its growth
 * line, the share delivered and the rate of opens or clicks by empirical Bayes under cells of cadence × size. What all
 * publications teach together is refitted once a day. Nothing later than a send's own as-of time is used for it.
 *
 * O(days · sends + sends · sends of the publication)
 */
export function inventoryBase(
  history: SendHistory,
  target: InventoryTarget,
  leadMs: number,
): InventoryBase {
  const walk = new Walk(history, target);
  const n = history.nSends;
  const mean = new Float64Array(n);
  const deviation = new Float64Array(n);
  const features = new Float32Array(n * BASE_FEATURES.length);
  const order = Array.from({ length: n }, (_, i) => i).sort(
    (a, b) => history.plannedMs[a]! - history.plannedMs[b]! || a - b,
  );
  for (const i of order) {
    walk.forecast(i, history.plannedMs[i]! - leadMs, { mean, deviation, features });
  }
  return { target, mean, deviation, features };
}

class Walk {
  readonly #history: SendHistory;
  readonly #target: InventoryTarget;
  readonly #rows: readonly Uint32Array[];
  readonly #reports: readonly Reports[];
  /** Per publication, of its finished sends: when the outcome was known, count, exposure, weekday, slots. */
  readonly #outcomes: readonly Outcomes[];
  readonly #deliveries: readonly Outcomes[];
  readonly #unfinished: Unfinished | undefined;
  #network: Network | undefined;
  #day = Number.NaN;

  constructor(history: SendHistory, target: InventoryTarget) {
    this.#history = history;
    this.#target = target;
    this.#rows = groupRows(history);
    this.#reports = groupReports(history, this.#rows);
    this.#deliveries = this.#rows.map((own) => outcomesOf(history, own, 'delivered'));
    this.#outcomes =
      target === 'delivered'
        ? this.#deliveries
        : this.#rows.map((own) => outcomesOf(history, own, target));
    this.#unfinished =
      target === 'delivered' ? undefined : new Unfinished(history, target, this.#rows);
  }

  forecast(
    row: number,
    asOfMs: number,
    into: { mean: Float64Array; deviation: Float64Array; features: Float32Array },
  ): void {
    const history = this.#history;
    const p = history.publication[row]!;
    const day = Math.floor(asOfMs / DAY_MS);
    if (day !== this.#day) {
      this.#network = this.#learn(day * DAY_MS);
      this.#unfinished?.learn(day * DAY_MS);
      this.#day = day;
    }
    const network = this.#network!;
    const reports = this.#reportsOf(p, asOfMs);
    const size = estimateSize(network.growth, reports, history.plannedMs[row]!);
    const at = row * BASE_FEATURES.length;
    if (size === undefined || network.nOutcomes < MIN_OUTCOMES) {
      into.mean[row] = Number.NaN;
      into.deviation[row] = Number.NaN;
      into.features.fill(Number.NaN, at, at + BASE_FEATURES.length);
      return;
    }
    const cell = inventoryCell(history.cadencePerWeek[row]!, size.size);
    const own = this.#deliveries[p]!;
    const delivery = estimateRate(network.delivery, own, {
      from: 0,
      to: countUntil(own.knownMs, asOfMs),
      cell,
    });
    const isDelivered = this.#target === 'delivered';
    const outcomes = this.#outcomes[p]!;
    const known = countUntil(outcomes.knownMs, asOfMs);
    const slots = this.#target === 'clicks' ? network.slots : undefined;
    const rate = isDelivered
      ? delivery
      : estimateRate(network.rate, outcomes.scaled(slots), {
          ...{ from: 0, to: known, cell },
          early: this.#unfinished!.outcomes(p, asOfMs, slots),
        });
    const model = isDelivered ? network.delivery : network.rate;
    const weekday = history.localWeekday[row]!;
    const factor =
      (isDelivered ? 1 : model.weekday[weekday]!) * slotFactor(slots, history.nSlots[row]!);
    const exposure = size.size * (isDelivered ? 1 : delivery.rate);
    const mean = exposure * factor * rate.rate;
    const binomial = model.binomial ? Math.max(1e-6, 1 - rate.rate) : 1;
    // Counting, what varies from send to send, what is not known of the rate, of the list.
    const variance =
      mean * binomial * model.counting +
      mean * mean * model.dispersion +
      (exposure * factor) ** 2 * rate.variance +
      mean * mean * size.variance;
    into.mean[row] = mean;
    into.deviation[row] = Math.sqrt(variance);
    const last = known - 1;
    into.features.set(
      [
        Math.log(size.size),
        Math.sqrt(size.variance),
        Math.log(rate.rate / model.base),
        last < 0 ? Number.NaN : outcomes.ratio(last, slots, model.weekday) / rate.rate,
        last < 0 ? Number.NaN : (asOfMs - outcomes.knownMs[last]!) / DAY_MS,
        reports.to,
        history.cadencePerWeek[row]!,
        weekday,
        history.localHour[row]!,
        history.nSlots[row]!,
      ],
      at,
    );
  }

  #reportsOf(p: number, asOfMs: number): SizeReports {
    const own = this.#reports[p]!;
    return { atMs: own.atMs, size: own.size, from: 0, to: countUntil(own.knownMs, asOfMs) };
  }

  #learn(asOfMs: number): Network {
    const history = this.#history;
    const n = history.nPublications;
    const growth = fitGrowth(Array.from({ length: n }, (_, p) => this.#reportsOf(p, asOfMs)));
    const cells = new Uint8Array(n);
    for (let p = 0; p < n; p++) {
      const rows = this.#rows[p]!;
      const reports = this.#reportsOf(p, asOfMs);
      const cadence = rows.length > 0 ? history.cadencePerWeek[rows[0]!]! : 1;
      cells[p] = inventoryCell(cadence, reports.to > 0 ? reports.size[reports.to - 1]! : 1000);
    }
    const nOutcomes = this.#outcomes.reduce((sum, own) => sum + countUntil(own.knownMs, asOfMs), 0);
    const delivery = fitRates(gather(this.#deliveries, asOfMs, cells, undefined), true);
    if (this.#target === 'delivered') {
      // Whether mail arrives does not depend on the day.
      return { nOutcomes, growth, delivery, rate: delivery, slots: new Float64Array(0) };
    }
    if (this.#target === 'opens') {
      const rate = fitRates(gather(this.#outcomes, asOfMs, cells, undefined), true);
      return { nOutcomes, growth, delivery, rate, slots: new Float64Array(0) };
    }
    let slots = Float64Array.from({ length: MAX_SLOTS + 1 }, (_, k) => k);
    let rate = fitRates(gather(this.#outcomes, asOfMs, cells, slots), false);
    for (let round = 0; round < 2; round++) {
      slots = slotFactors(this.#outcomes, asOfMs, { cells, rate, slots });
      rate = fitRates(gather(this.#outcomes, asOfMs, cells, slots), false);
    }
    return { nOutcomes, growth, delivery, rate, slots };
  }
}

/** Finished sends of one publication in order of when their outcome was known. */
class Outcomes {
  readonly knownMs: Float64Array;
  readonly count: Float64Array;
  readonly exposure: Float64Array;
  readonly weekday: Uint8Array;
  readonly slots: Uint8Array;
  #scaledBy: Float64Array | undefined;
  #scaled: Float64Array | undefined;

  constructor(rows: readonly OutcomeRow[]) {
    this.knownMs = Float64Array.from(rows, (r) => r.knownMs);
    this.count = Float64Array.from(rows, (r) => r.count);
    this.exposure = Float64Array.from(rows, (r) => r.exposure);
    this.weekday = Uint8Array.from(rows, (r) => r.weekday);
    this.slots = Uint8Array.from(rows, (r) => r.slots);
  }

  /** With exposures times the factor of their ad places. */
  scaled(slots: Float64Array | undefined): {
    count: Float64Array;
    exposure: Float64Array;
    weekday: Uint8Array;
  } {
    if (slots === undefined) return this;
    if (this.#scaledBy !== slots) {
      this.#scaledBy = slots;
      this.#scaled = this.exposure.map((e, i) => e * slots[this.slots[i]!]!);
    }
    return { count: this.count, exposure: this.#scaled!, weekday: this.weekday };
  }

  ratio(i: number, slots: Float64Array | undefined, weekday: Float64Array): number {
    const exposure = this.scaled(slots).exposure[i]! * weekday[this.weekday[i]!]!;
    return exposure > 0 ? this.count[i]! / exposure : Number.NaN;
  }
}

/** Sends that went out and whose outcome is not final yet, as far as their hours tell. */
class Unfinished {
  readonly #history: SendHistory;
  readonly #target: 'opens' | 'clicks';
  /** Rows of each publication that went out, in order of sending. */
  readonly #sent: readonly Uint32Array[];
  readonly #sentMs: readonly Float64Array[];
  /** Rows of all in order of sending: those before `#learnt` have taught how outcomes come in. */
  readonly #order: Uint32Array;
  #learnt = 0;
  readonly #nHours: number;
  readonly #arrival: Arrival;

  constructor(history: SendHistory, target: 'opens' | 'clicks', rows: readonly Uint32Array[]) {
    this.#history = history;
    this.#target = target;
    const bySending = (own: Uint32Array) =>
      own
        .filter((i) => history.sentMs[i]! > 0)
        .sort((a, b) => history.sentMs[a]! - history.sentMs[b]! || a - b);
    this.#sent = rows.map(bySending);
    this.#sentMs = this.#sent.map((own) => Float64Array.from(own, (i) => history.sentMs[i]!));
    this.#order = bySending(Uint32Array.from({ length: history.nSends }, (_, i) => i));
    this.#nHours = history.outcomeMs / HOUR_MS;
    this.#arrival = new Arrival(this.#nHours);
  }

  /** Learns how outcomes come in from the sends that are finished at a time, which must not go back. */
  learn(asOfMs: number): void {
    const { sentMs, outcomeMs, localHour } = this.#history;
    while (this.#learnt < this.#order.length) {
      const i = this.#order[this.#learnt]!;
      if (sentMs[i]! + outcomeMs > asOfMs) break;
      this.#arrival.learn(this.#hours(i), localHour[i]!);
      this.#learnt++;
    }
  }

  /** What a publication's unfinished sends have brought until a time, by hours that were over then. */
  outcomes(p: number, asOfMs: number, slots: Float64Array | undefined): EarlyOutcome[] {
    const { sentMs, outcomeMs, localHour, localWeekday, delivered, nSlots } = this.#history;
    const own = this.#sent[p]!;
    const found: EarlyOutcome[] = [];
    for (let k = countUntil(this.#sentMs[p]!, asOfMs) - 1; k >= 0; k--) {
      const i = own[k]!;
      // A forecast made later than the history ends finds outcomes that are not known yet.
      if (sentMs[i]! + outcomeMs <= asOfMs && !Number.isNaN(this.#history[this.#target][i]!)) break;
      // Opens are counted by the clock.
      const fromMs =
        this.#target === 'opens' ? Math.floor(sentMs[i]! / HOUR_MS) * HOUR_MS : sentMs[i]!;
      const over = Math.min(this.#nHours, Math.floor((asOfMs - fromMs) / HOUR_MS));
      const hours = this.#hours(i);
      let count = 0;
      let known = 0;
      while (known < over && !Number.isNaN(hours[known]!)) count += hours[known++]!;
      const factor = slotFactor(slots, nSlots[i]!);
      const share = this.#arrival.share(localHour[i]!, known);
      const exposure = delivered[i]! * factor * share;
      if (!(exposure > 0)) continue;
      const dispersion = this.#arrival.dispersion(known);
      found.push({ count, exposure, weekday: localWeekday[i]!, dispersion });
    }
    return found;
  }

  #hours(i: number): Float64Array {
    return this.#history.hourly[this.#target].subarray(i * this.#nHours, (i + 1) * this.#nHours);
  }
}

interface OutcomeRow {
  readonly knownMs: number;
  readonly count: number;
  readonly exposure: number;
  readonly weekday: number;
  readonly slots: number;
}

function outcomesOf(history: SendHistory, rows: Uint32Array, target: InventoryTarget): Outcomes {
  const out: OutcomeRow[] = [];
  for (const i of rows) {
    const sent = history.sentMs[i]!;
    const count = history[target][i]!;
    const exposure = target === 'delivered' ? history.recipients[i]! : history.delivered[i]!;
    const slots = Math.min(MAX_SLOTS, history.nSlots[i]!);
    if (!(sent > 0) || !Number.isFinite(count) || !(exposure > 0)) continue;
    if (target === 'clicks' && slots === 0) continue;
    out.push({
      knownMs: target === 'delivered' ? sent : sent + history.outcomeMs,
      count,
      exposure,
      // Whether mail arrives does not depend on the day.
      weekday: target === 'delivered' ? 0 : history.localWeekday[i]!,
      slots,
    });
  }
  out.sort((a, b) => a.knownMs - b.knownMs);
  return new Outcomes(out);
}

function gather(
  outcomes: readonly Outcomes[],
  asOfMs: number,
  cell: Uint8Array,
  slots: Float64Array | undefined,
) {
  const counts = outcomes.map((own) => countUntil(own.knownMs, asOfMs));
  const offsets = new Uint32Array(outcomes.length + 1);
  for (let p = 0; p < outcomes.length; p++) offsets[p + 1] = offsets[p]! + counts[p]!;
  const total = offsets[outcomes.length]!;
  const count = new Float64Array(total);
  const exposure = new Float64Array(total);
  const weekday = new Uint8Array(total);
  outcomes.forEach((own, p) => {
    const scaled = own.scaled(slots);
    const k = counts[p]!;
    count.set(scaled.count.subarray(0, k), offsets[p]);
    exposure.set(scaled.exposure.subarray(0, k), offsets[p]);
    weekday.set(scaled.weekday.subarray(0, k), offsets[p]);
  });
  return {
    nPublications: outcomes.length,
    offsets,
    count,
    exposure,
    weekday,
    cell,
    nCells: N_CELLS,
  };
}

/** Worth of so many ad places relative to one: observed over expected clicks, shrunk to proportion. */
function slotFactors(
  outcomes: readonly Outcomes[],
  asOfMs: number,
  o: { cells: Uint8Array; rate: RateModel; slots: Float64Array },
): Float64Array<ArrayBuffer> {
  const top = new Float64Array(MAX_SLOTS + 1).fill(20);
  const bottom = new Float64Array(MAX_SLOTS + 1).fill(20);
  outcomes.forEach((own, p) => {
    const known = countUntil(own.knownMs, asOfMs);
    if (known === 0) return;
    const scaled = own.scaled(o.slots);
    const { rate } = estimateRate(o.rate, scaled, { from: 0, to: known, cell: o.cells[p]! });
    for (let i = 0; i < known; i++) {
      const expected = rate * scaled.exposure[i]! * o.rate.weekday[own.weekday[i]!]!;
      // Sends weigh by what they tell: counting noise and dispersion.
      const weight = 1 / (1 + o.rate.dispersion * expected);
      top[own.slots[i]!]! += weight * own.count[i]!;
      bottom[own.slots[i]!]! += weight * expected;
    }
  });
  return Float64Array.from(o.slots, (s, k) => (k === 0 ? 0 : (s * top[k]!) / bottom[k]!));
}
