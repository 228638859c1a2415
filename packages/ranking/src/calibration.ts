/**
 * What a model's raw logit still needs to become a probability. Every kind but the shift keeps the order of candidates:
 * - `platt`: a·z + b repairs level and spread (Platt 1999), a > 0
 * - `beta`: a·ln p − b·ln(1 − p) + c of p = σ(z), which also bends (Kull, Silva Filho & Flach 2017), a, b ≥ 0
 * - `isotonic`: straight lines from knot to knot, logit to logit, slope 1 beyond the ends; both columns rise, so that equal
 *   outputs never come from unequal inputs and the raw score breaks what pooling made equal
 * - `shift`: a number added per slice; a slice that it does not know gets none
 * - `composed`: one after the other, each on the logit that the one before it gave
 */
export type Calibration =
  | { readonly kind: 'identity' }
  | { readonly kind: 'platt'; readonly a: number; readonly b: number }
  | { readonly kind: 'beta'; readonly a: number; readonly b: number; readonly c: number }
  | { readonly kind: 'isotonic'; readonly x: readonly number[]; readonly y: readonly number[] }
  | {
      readonly kind: 'shift';
      readonly by: string;
      readonly shifts: Readonly<Record<string, number>>;
    }
  | { readonly kind: 'composed'; readonly steps: readonly Calibration[] };

/** An isotonic calibration has at most so many knots: served models stay small. */
export const MAX_CALIBRATION_KNOTS = 64;
const MAX_STEPS = 4;

/** Logistic function without overflow at either end; p of a logit. */
export function sigmoid(logit: number): number {
  if (logit >= 0) return 1 / (1 + Math.exp(-logit));
  const e = Math.exp(logit);
  return e / (1 + e);
}

/** Inverse of `sigmoid`; ±Infinity at 1 and 0. */
export function logit(p: number): number {
  return Math.log(p) - Math.log1p(-p);
}

const MIN_PROBABILITY = 1e-9;

/** `logit` of p drawn into [1e-9, 1 − 1e-9]: one candidate that a model is sure of must not make a mean of logits infinite. */
export function boundedLogit(p: number): number {
  return logit(Math.min(1 - MIN_PROBABILITY, Math.max(MIN_PROBABILITY, p)));
}

/** ln(1 + eˣ) without overflow: −ln(1 − σ(x)). */
export function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** The calibration as `a·logit + b` where it is a line (identity is (1, 0)), undefined where it bends or asks for a slice. */
export function calibrationLine(
  calibration: Calibration,
): { readonly a: number; readonly b: number } | undefined {
  switch (calibration.kind) {
    case 'identity':
      return { a: 1, b: 0 };
    case 'platt':
      return { a: calibration.a, b: calibration.b };
    case 'composed': {
      let line = { a: 1, b: 0 };
      for (const step of calibration.steps) {
        const next = calibrationLine(step);
        if (next === undefined) return undefined;
        line = { a: next.a * line.a, b: next.a * line.b + next.b };
      }
      return line;
    }
    default:
      return undefined;
  }
}

/**
 * Logit after calibration. O(log knots)
 * @param slice of the row, for shifts
 */
export function calibrateLogit(calibration: Calibration, rawLogit: number, slice?: string): number {
  switch (calibration.kind) {
    case 'identity':
      return rawLogit;
    case 'platt':
      return calibration.a * rawLogit + calibration.b;
    case 'beta':
      return (
        calibration.b * softplus(rawLogit) - calibration.a * softplus(-rawLogit) + calibration.c
      );
    case 'isotonic':
      return interpolate(calibration.x, calibration.y, rawLogit);
    case 'shift':
      return (
        rawLogit +
        (slice !== undefined && Object.hasOwn(calibration.shifts, slice)
          ? calibration.shifts[slice]!
          : 0)
      );
    case 'composed':
      return calibration.steps.reduce((z, step) => calibrateLogit(step, z, slice), rawLogit);
  }
}

/** Probability of a raw logit after calibration. @param slice of the row, for shifts */
export function calibrate(calibration: Calibration, rawLogit: number, slice?: string): number {
  return sigmoid(calibrateLogit(calibration, rawLogit, slice));
}

/** What slices a calibration shifts by, undefined when it does not. */
export function sliceOfCalibration(calibration: Calibration): string | undefined {
  if (calibration.kind === 'shift') return calibration.by;
  if (calibration.kind !== 'composed') return undefined;
  return calibration.steps.map(sliceOfCalibration).find((by) => by !== undefined);
}

function interpolate(x: readonly number[], y: readonly number[], z: number): number {
  const last = x.length - 1;
  if (z <= x[0]!) return y[0]! + (z - x[0]!);
  if (z >= x[last]!) return y[last]! + (z - x[last]!);
  let low = 0;
  let high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle]! <= z) low = middle;
    else high = middle;
  }
  return y[low]! + ((y[high]! - y[low]!) / (x[high]! - x[low]!)) * (z - x[low]!);
}

/** Why an untrusted calibration cannot be used; undefined when it can. */
export function calibrationFault(value: unknown, depth = 0): string | undefined {
  if (typeof value !== 'object' || value === null) return 'is not an object';
  const c = value as Record<string, unknown>;
  const finite = (...names: string[]): boolean => names.every((name) => Number.isFinite(c[name]));
  switch (c['kind']) {
    case 'identity':
      return undefined;
    case 'platt':
      return finite('a', 'b') ? undefined : 'is platt without finite a and b';
    case 'beta': {
      if (!finite('a', 'b', 'c')) return 'is beta without finite a, b and c';
      const rising = (c['a'] as number) >= 0 && (c['b'] as number) >= 0;
      return rising ? undefined : 'is beta with a negative a or b, which turns the order around';
    }
    case 'isotonic': {
      const { x, y } = c;
      if (!rises(x) || !rises(y) || x.length !== y.length) {
        return 'is isotonic without two rising columns of one length';
      }
      return x.length <= MAX_CALIBRATION_KNOTS ? undefined : `has ${x.length} knots`;
    }
    case 'shift': {
      const { shifts } = c;
      const record = typeof shifts === 'object' && shifts !== null && !Array.isArray(shifts);
      return typeof c['by'] === 'string' && record && Object.values(shifts).every(Number.isFinite)
        ? undefined
        : 'is a shift without finite numbers by slice';
    }
    case 'composed': {
      const { steps } = c;
      if (!Array.isArray(steps) || steps.length > MAX_STEPS || depth > 0) {
        return 'is composed of no list of few, single steps';
      }
      return steps.map((step) => calibrationFault(step, depth + 1)).find((f) => f !== undefined);
    }
    default:
      return `is of unknown kind ${String(c['kind'])}`;
  }
}

function rises(column: unknown): column is number[] {
  return (
    Array.isArray(column) &&
    column.length > 0 &&
    column.every((v, i) => Number.isFinite(v) && (i === 0 || v > column[i - 1]))
  );
}

/**
 * Probabilities of several classes at a temperature: softmax(logits / t). t > 1 makes a model less sure, t < 1 more
 * (Guo et al. 2017). In place when `out` is `logits`.
 * @param logits [nRows × nClasses], row-major
 * @param out [nRows × nClasses]; allocated when absent
 */
export function softmaxAtTemperature(
  logits: ArrayLike<number>,
  nClasses: number,
  temperature: number,
  out: Float64Array = new Float64Array(logits.length),
): Float64Array {
  for (let row = 0; row < logits.length; row += nClasses) {
    let most = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < nClasses; k++) most = Math.max(most, logits[row + k]!);
    let total = 0;
    for (let k = 0; k < nClasses; k++) {
      out[row + k] = Math.exp((logits[row + k]! - most) / temperature);
      total += out[row + k]!;
    }
    for (let k = 0; k < nClasses; k++) out[row + k] = out[row + k]! / total;
  }
  return out;
}
