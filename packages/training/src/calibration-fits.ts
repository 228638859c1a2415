import {
  type Calibration,
  calibrate,
  calibrateLogit,
  logit,
  MAX_CALIBRATION_KNOTS,
  sigmoid,
  softplus,
} from '@waggle/ranking';
import { trainingError } from './errors.js';

/** Rows with the weight that their shared luck leaves them, see `dispersionWeights`. */
export interface WeightedRows {
  /** [nRows] the model's raw logits. */
  readonly logits: ArrayLike<number>;
  readonly successes: ArrayLike<number>;
  readonly trials: ArrayLike<number>;
  /** [nRows] share of the successes that has arrived. */
  readonly maturity: ArrayLike<number>;
  readonly weights: ArrayLike<number>;
}

/** The whole of a fit, or these rows of it. */
export type RowNumbers = readonly number[] | Uint32Array;

export interface BelievedSpread {
  /** Of a level shift. */
  readonly level: number;
  /** Of (slope − 1) and of the bend. */
  readonly slope: number;
}

/**
 * Beta calibration a·ln p − b·ln(1 − p) + c (Kull et al. 2017) by penalised maximum likelihood, drawn towards identity.
 * Fitted as common slope (a + b)/2, bend (a − b)/2 and level, so that without bend it is Platt's line. Newton's method, O(n)
 * per iteration.
 * @returns undefined where the best fit would turn the order around
 */
export function fitBeta(
  rows: WeightedRows,
  spread: BelievedSpread,
  numbers: RowNumbers = allOf(rows),
): (Calibration & { kind: 'beta' }) | undefined {
  const { logits } = rows;
  const bend = (z: number): number => -softplus(-z) - softplus(z);
  // Centred where the successes are, so that level and slopes are nearly independent.
  let mass = 0;
  const center = [0, 0];
  for (const i of numbers) {
    const z = logits[i]!;
    const m = rows.weights[i]! * rows.trials[i]! * rows.maturity[i]! * sigmoid(z);
    mass += m;
    center[0]! += m * z;
    center[1]! += m * bend(z);
  }
  if (!(mass > 0)) return undefined;
  const [z0, b0] = [center[0]! / mass, center[1]! / mass];
  const precision = [1 / spread.level ** 2, 1 / spread.slope ** 2, 1 / spread.slope ** 2];
  const theta = [0, 0, 0];
  for (let iteration = 0; iteration < 50; iteration++) {
    const g = theta.map((t, k) => -t * precision[k]!);
    const h = [precision[0]!, 0, 0, 0, precision[1]!, 0, 0, 0, precision[2]!];
    for (const i of numbers) {
      const z = logits[i]!;
      const u = [1, z - z0, bend(z) - b0];
      const eta = z + theta[0]! + theta[1]! * u[1]! + theta[2]! * u[2]!;
      const p = sigmoid(eta + Math.log(rows.maturity[i]!));
      const residual = rows.weights[i]! * (rows.successes[i]! - rows.trials[i]! * p);
      const information = rows.weights[i]! * rows.trials[i]! * p * (1 - p);
      for (let k = 0; k < 3; k++) {
        g[k]! += residual * u[k]!;
        for (let l = 0; l < 3; l++) h[3 * k + l]! += information * u[k]! * u[l]!;
      }
    }
    const step = solve3(h, g);
    const scale = Math.min(1, 1 / Math.max(...step.map(Math.abs), 1e-300));
    for (let k = 0; k < 3; k++) theta[k]! += scale * step[k]!;
    if (step.reduce((sum, s) => sum + Math.abs(s), 0) < 1e-10) break;
  }
  // z = ln p − ln(1 − p) and bend = ln p + ln(1 − p).
  const a = 1 + theta[1]! + theta[2]!;
  const b = 1 + theta[1]! - theta[2]!;
  const c = theta[0]! - theta[1]! * z0 - theta[2]! * b0;
  if (!(a > 0.05) || !(b >= 0) || !Number.isFinite(c)) return undefined;
  return { kind: 'beta', a, b, c };
}

/** Solves the symmetric positive definite 3 × 3 system by Cramer's rule. */
function solve3(h: readonly number[], g: readonly number[]): number[] {
  const det = (m: readonly number[]): number =>
    m[0]! * (m[4]! * m[8]! - m[5]! * m[7]!) -
    m[1]! * (m[3]! * m[8]! - m[5]! * m[6]!) +
    m[2]! * (m[3]! * m[7]! - m[4]! * m[6]!);
  const whole = det(h);
  return [0, 1, 2].map((k) => det(h.map((v, i) => (i % 3 === k ? g[(i - k) / 3]! : v))) / whole);
}

/** Slope of the calibrated logit where isotonic regression itself is level. */
const TIE_SLOPE = 1e-3;
/** Knots are this far apart at least, in logits: far beyond rounding, far below what matters. */
const KNOT_GAP = 1e-6;
const KNOT_RISE = (TIE_SLOPE * KNOT_GAP) / 2;
/** Groups that isotonic regression may tell apart, and the believed successes each has at least. */
const MAX_GROUPS = 50;
const MIN_GROUP_SUCCESSES = 5;

/**
 * Isotonic calibration by pooling adjacent violators (Ayer et al. 1955) on groups of rows with binomial counts: observed
 * rates that fall where predictions rise are merged until they rise. Each group is drawn towards its prediction by one
 * success. What was pooled is level but for a hair, by which the raw scores keep their order within (domain §3); between
 * blocks the calibration is a line in logits; a last shift makes expected and observed successes equal. O(n log n).
 * @returns undefined without successes
 */
export function fitIsotonic(
  rows: WeightedRows,
  numbers: RowNumbers = allOf(rows),
): (Calibration & { kind: 'isotonic' }) | undefined {
  const { logits } = rows;
  const order = Array.from(numbers).sort((a, b) => logits[a]! - logits[b]! || a - b);
  let total = 0;
  let promised = 0;
  for (const i of order) {
    total += rows.weights[i]! * rows.successes[i]!;
    promised += rows.weights[i]! * rows.trials[i]! * rows.maturity[i]! * sigmoid(logits[i]!);
  }
  if (!(total > 0)) return undefined;
  const enough = Math.max(promised / MAX_GROUPS, MIN_GROUP_SUCCESSES);
  type Block = { hits: number; expected: number; trials: number };
  const groups: Block[] = [];
  let open: Block = { hits: 0, expected: 0, trials: 0 };
  order.forEach((i, at) => {
    const w = rows.weights[i]!;
    const n = w * rows.trials[i]! * rows.maturity[i]!;
    open.hits += w * rows.successes[i]!;
    open.expected += n * sigmoid(logits[i]!);
    open.trials += n;
    // Closed by what is predicted, not by what came: the groups must not depend on the labels.
    const tied = at + 1 < order.length && logits[order[at + 1]!] === logits[i];
    if (open.expected < enough || tied) return;
    groups.push(open);
    open = { hits: 0, expected: 0, trials: 0 };
  });
  if (open.trials > 0) {
    const last = groups.at(-1);
    if (last === undefined || groups.length < 2) groups.push(open);
    else {
      last.hits += open.hits;
      last.expected += open.expected;
      last.trials += open.trials;
    }
  }
  const blocks: (Block & { readonly first: number; readonly last: number })[] = [];
  for (const group of groups) {
    const center = logitOf(group.expected, group.trials);
    // One more success, at the rate that was predicted.
    let block = {
      hits: group.hits + 1,
      expected: group.expected + 1,
      trials: group.trials * (1 + 1 / group.expected),
      first: center,
      last: center,
    };
    for (;;) {
      const before = blocks.at(-1);
      if (before === undefined || before.hits / before.trials < block.hits / block.trials) break;
      blocks.pop();
      block = {
        hits: before.hits + block.hits,
        expected: before.expected + block.expected,
        trials: before.trials + block.trials,
        first: before.first,
        last: block.last,
      };
    }
    blocks.push(block);
  }
  const x: number[] = [];
  const y: number[] = [];
  for (const block of blocks) {
    const level = logitOf(block.hits, block.trials);
    const middle = (block.first + block.last) / 2;
    for (const at of [block.first, block.last]) {
      const to = level + TIE_SLOPE * (at - middle);
      // One knot for a group that was not pooled, and for predictions or rates that are the same but for rounding.
      if (x.length > 0 && !(at - x.at(-1)! > KNOT_GAP && to - y.at(-1)! > KNOT_RISE)) continue;
      if (x.length === MAX_CALIBRATION_KNOTS) break;
      x.push(at);
      y.push(to);
    }
  }
  const level = levelShift(rows, order, { kind: 'isotonic', x, y }, total);
  return { kind: 'isotonic', x, y: y.map((v) => v + level) };
}

/** Logit of a rate, finite where nothing or everything succeeded. */
function logitOf(part: number, whole: number): number {
  return logit(Math.min(Math.max(part / whole, 1e-12), 1 - 1e-12));
}

/**
 * Shift of the logits at which as many successes are expected as came. Where all logits were the highest of them, the shift
 * would be too small, were they the lowest, too large: between the two Newton's method, halving the interval wherever a step
 * leaves it or does not get on, as on the plateaus of a steep curve. O(n) per iteration.
 */
function levelShift(
  rows: WeightedRows,
  order: readonly number[],
  shape: Calibration,
  total: number,
): number {
  const shaped = Float64Array.from(order, (i) => calibrateLogit(shape, rows.logits[i]!));
  const trials = Float64Array.from(
    order,
    (i) => rows.weights[i]! * rows.trials[i]! * rows.maturity[i]!,
  );
  let whole = 0;
  let [lowest, highest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let j = 0; j < shaped.length; j++) {
    whole += trials[j]!;
    lowest = Math.min(lowest, shaped[j]!);
    highest = Math.max(highest, shaped[j]!);
  }
  const rate = logitOf(total, whole);
  let [low, high] = [rate - highest, rate - lowest];
  let level = Math.min(Math.max(0, low), high);
  let before = Number.POSITIVE_INFINITY;
  for (let iteration = 0; iteration < 200; iteration++) {
    let expected = 0;
    let slope = 0;
    for (let j = 0; j < shaped.length; j++) {
      const p = sigmoid(shaped[j]! + level);
      expected += trials[j]! * p;
      slope += trials[j]! * p * (1 - p);
    }
    if (expected < total) low = level;
    else high = level;
    let step = (total - expected) / slope;
    const next = level + step;
    if (!(next >= low && next <= high && Math.abs(step) <= before / 2)) {
      step = (low + high) / 2 - level;
    }
    level += step;
    before = Math.abs(step);
    if (before <= 1e-12) break;
  }
  return level;
}

export interface SliceShiftFit {
  readonly calibration: Calibration & { kind: 'shift' };
  /** Estimated variance of the true shifts: 0 = the slices do not differ beyond chance. */
  readonly variance: number;
}

/** A slice's shift beyond this is a broken counter, not a property. */
const MAX_SHIFT = 2;

/**
 * A shift of the logit per slice, drawn towards 0 by empirical Bayes: true shifts are normal around 0 with a variance that
 * the slices themselves tell (Paule & Mandel 1982), and each slice is believed as far as its own rows go. A slice with few
 * rows stays at 0, and so does every slice when they do not differ. O(n).
 *
 * @param base calibration that comes before the shift
 * @param by what the slices are, for the model file
 * @param slices [nRows] slice of each row
 * @throws WAGGLE_TRAINING_SHAPE
 */
export function fitSliceShifts(
  rows: WeightedRows,
  base: Calibration,
  slicing: { readonly by: string; readonly slices: readonly string[] },
): SliceShiftFit {
  const { by, slices } = slicing;
  const nRows = rows.logits.length;
  if (slices.length !== nRows) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${slices.length} slices where ${nRows} rows are expected`,
    );
  }
  const logits = Float64Array.from({ length: nRows }, (_, i) =>
    calibrateLogit(base, rows.logits[i]!),
  );
  const members = new Map<string, number[]>();
  for (let i = 0; i < nRows; i++) {
    if (!(rows.trials[i]! > 0)) continue;
    const own = members.get(slices[i]!);
    if (own === undefined) members.set(slices[i]!, [i]);
    else own.push(i);
  }
  const names = [...members.keys()].sort();
  const seen = names.map((name) => {
    let hits = 0;
    let expected = 0;
    let trials = 0;
    let information = 0;
    for (const i of members.get(name)!) {
      const p = sigmoid(logits[i]!) * rows.maturity[i]!;
      const n = rows.weights[i]! * rows.trials[i]!;
      hits += rows.weights[i]! * rows.successes[i]!;
      expected += n * p;
      trials += n;
      information += n * p * (1 - p);
    }
    // Half a success and half a failure on either side keep empty slices finite (Haldane 1956).
    const shift =
      Math.log((hits + 0.5) / (expected + 0.5)) -
      Math.log((trials - hits + 0.5) / (trials - expected + 0.5));
    return { shift, variance: 1 / (information + 0.25) };
  });
  const variance = betweenVariance(seen);
  const shifts: Record<string, number> = {};
  for (const name of names) {
    if (variance === 0) break;
    const shift = posteriorShift(rows, logits, members.get(name)!, variance);
    shifts[name] = Math.min(Math.max(shift, -MAX_SHIFT), MAX_SHIFT);
  }
  return { calibration: { kind: 'shift', by, shifts }, variance };
}

/**
 * Variance t with Σ shift²/(variance + t) = G + √(2G): the sum that G slices would have without further spread, plus one
 * standard deviation of it, so that chance alone rarely looks like a difference. 0 when they spread no more than that.
 */
function betweenVariance(seen: readonly { shift: number; variance: number }[]): number {
  const chance = seen.length + Math.sqrt(2 * seen.length);
  const excess = (t: number): number =>
    seen.reduce((sum, s) => sum + s.shift ** 2 / (s.variance + t), 0) - chance;
  if (seen.length < 2 || excess(0) <= 0) return 0;
  let low = 0;
  let high = MAX_SHIFT ** 2;
  if (excess(high) > 0) return high;
  for (let iteration = 0; iteration < 60; iteration++) {
    const middle = (low + high) / 2;
    if (excess(middle) > 0) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The likeliest shift under a normal prior of this variance, by Newton's method. */
function posteriorShift(
  rows: WeightedRows,
  logits: Float64Array,
  members: readonly number[],
  variance: number,
): number {
  let shift = 0;
  for (let iteration = 0; iteration < 50; iteration++) {
    let gradient = -shift / variance;
    let information = 1 / variance;
    for (const i of members) {
      const p = sigmoid(logits[i]! + shift + Math.log(rows.maturity[i]!));
      gradient += rows.weights[i]! * (rows.successes[i]! - rows.trials[i]! * p);
      information += rows.weights[i]! * rows.trials[i]! * p * (1 - p);
    }
    const step = gradient / information;
    shift += Math.min(1, Math.max(-1, step));
    if (Math.abs(step) < 1e-10) break;
  }
  return shift;
}

/** Believed spread of 1/temperature around 1. */
const INVERSE_TEMPERATURE_SD = 0.3;

/**
 * Temperature of a multi-class model by penalised maximum likelihood (Guo et al. 2017), drawn towards 1; the loss is convex
 * in 1/t. O(n·k) per iteration.
 * @param logits [nRows × nClasses], row-major
 * @param labels [nRows] class numbers
 * @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_LABEL
 */
export function fitTemperature(o: {
  readonly logits: ArrayLike<number>;
  readonly nClasses: number;
  readonly labels: ArrayLike<number>;
  readonly weights?: ArrayLike<number>;
}): number {
  const { logits, nClasses, labels, weights } = o;
  const nRows = labels.length;
  if (logits.length !== nRows * nClasses || (weights !== undefined && weights.length !== nRows)) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${logits.length} logits for ${nRows} rows of ${nClasses} classes`,
    );
  }
  for (let i = 0; i < nRows; i++) {
    const label = labels[i]!;
    if (!(Number.isInteger(label) && label >= 0 && label < nClasses)) {
      throw trainingError('WAGGLE_TRAINING_LABEL', `row ${i} has class ${label} of ${nClasses}`);
    }
  }
  let inverse = 1;
  for (let iteration = 0; iteration < 50; iteration++) {
    let gradient = (inverse - 1) / INVERSE_TEMPERATURE_SD ** 2;
    let curvature = 1 / INVERSE_TEMPERATURE_SD ** 2;
    for (let i = 0; i < nRows; i++) {
      const w = weights === undefined ? 1 : weights[i]!;
      const row = i * nClasses;
      let most = Number.NEGATIVE_INFINITY;
      for (let k = 0; k < nClasses; k++) most = Math.max(most, logits[row + k]!);
      let total = 0;
      let mean = 0;
      let square = 0;
      for (let k = 0; k < nClasses; k++) {
        const l = logits[row + k]! - most;
        const p = Math.exp(inverse * l);
        total += p;
        mean += p * l;
        square += p * l * l;
      }
      mean /= total;
      gradient += w * (mean - (logits[row + labels[i]!]! - most));
      curvature += w * (square / total - mean * mean);
    }
    const step = gradient / curvature;
    // Half of the way to 0 at most: a temperature is positive.
    inverse = Math.max(inverse - step, inverse / 2);
    if (Math.abs(step) < 1e-10) break;
  }
  return 1 / inverse;
}

/** Weighted loss of rows under a calibration, summed per cluster. */
export function calibratedLosses(
  rows: WeightedRows & { readonly clusters: ArrayLike<number> },
  calibration: Calibration,
  numbers: RowNumbers,
  into: Float64Array,
): void {
  for (const i of numbers) {
    const visible = calibrate(calibration, rows.logits[i]!) * rows.maturity[i]!;
    const p = Math.min(Math.max(visible, 1e-15), 1 - 1e-15);
    const s = rows.successes[i]!;
    into[rows.clusters[i]!]! -=
      rows.weights[i]! * (s * Math.log(p) + (rows.trials[i]! - s) * Math.log1p(-p));
  }
}

function allOf(rows: WeightedRows): Uint32Array {
  return Uint32Array.from({ length: rows.logits.length }, (_, i) => i);
}
