import { mean } from '../series.js';

/** A series without its season, and the way back. */
export interface ClassicalParts {
  readonly multiplicative: boolean;
  /** [season] indices, of sum 0 or of mean 1. */
  readonly indices: Float64Array;
  readonly adjusted: Float64Array;
  /** Puts the season of time `t` (0 = first value) back on a level … */
  reseason(level: number, t: number): number;
  /** … and on a deviation. */
  rescale(deviation: number, t: number): number;
}

/** Centred moving average over one season; NaN at both ends. O(n) */
export function centredAverage(y: Float64Array, season: number): Float64Array {
  const out = new Float64Array(y.length).fill(Number.NaN);
  const half = season >> 1;
  const even = season % 2 === 0;
  for (let t = half; t < y.length - half; t++) {
    let sum = 0;
    for (let k = -half; k <= half; k++) {
      sum += y[t + k]! * (even && (k === -half || k === half) ? 0.5 : 1);
    }
    out[t] = sum / season;
  }
  return out;
}

/**
 * Classical decomposition with one fixed season: multiplicative where the series stays above zero and no index nears it,
 * additive otherwise or where that is asked for. O(n · season)
 */
export function classicalDecomposition(
  y: Float64Array,
  season: number,
  kind: 'auto' | 'additive' = 'auto',
): ClassicalParts {
  const trend = centredAverage(y, season);
  let positive = kind === 'auto';
  for (const v of y) if (v <= 0) positive = false;
  const sums = new Float64Array(season);
  const counts = new Float64Array(season);
  for (let t = 0; t < y.length; t++) {
    if (Number.isNaN(trend[t]!)) continue;
    sums[t % season]! += positive ? y[t]! / trend[t]! : y[t]! - trend[t]!;
    counts[t % season]!++;
  }
  const raw = sums.map((s, i) => (counts[i]! > 0 ? s / counts[i]! : positive ? 1 : 0));
  const centre = mean(raw);
  // A nearly empty season would blow the rest up.
  const multiplicative = positive && raw.every((v) => v / centre > 0.01);
  const indices =
    positive && !multiplicative
      ? additiveIndices(y, trend, season)
      : raw.map((v) => (multiplicative ? v / centre : v - centre));
  const at = (t: number) => indices[t % season]!;
  return {
    multiplicative,
    indices,
    adjusted: y.map((v, t) => (multiplicative ? v / at(t) : v - at(t))),
    reseason: (level, t) => (multiplicative ? level * at(t) : level + at(t)),
    rescale: (deviation, t) => (multiplicative ? deviation * at(t) : deviation),
  };
}

function additiveIndices(y: Float64Array, trend: Float64Array, season: number): Float64Array {
  const sums = new Float64Array(season);
  const counts = new Float64Array(season);
  for (let t = 0; t < y.length; t++) {
    if (Number.isNaN(trend[t]!)) continue;
    sums[t % season]! += y[t]! - trend[t]!;
    counts[t % season]!++;
  }
  const raw = sums.map((s, i) => (counts[i]! > 0 ? s / counts[i]! : 0));
  const centre = mean(raw);
  return raw.map((v) => v - centre);
}

/** Autocorrelations at lags 1 … nLags. O(n · nLags) */
export function autocorrelations(y: Float64Array, nLags: number): Float64Array {
  const m = mean(y);
  let zero = 0;
  for (const v of y) zero += (v - m) ** 2;
  return Float64Array.from({ length: nLags }, (_, k) => {
    let sum = 0;
    for (let t = k + 1; t < y.length; t++) sum += (y[t]! - m) * (y[t - k - 1]! - m);
    return zero > 0 ? sum / zero : 0;
  });
}

/**
 * Whether the autocorrelation at the season is significant at 90 % (the test of the M4 benchmarks). Fewer than three
 * seasons are not tested and count as no season.
 */
export function isSeasonal(y: Float64Array, season: number): boolean {
  if (season < 2 || y.length < 3 * season) return false;
  const r = autocorrelations(y, season);
  let variance = 1;
  for (let k = 0; k < season - 1; k++) variance += 2 * r[k]! ** 2;
  return Math.abs(r[season - 1]!) > 1.645 * Math.sqrt(variance / y.length);
}
