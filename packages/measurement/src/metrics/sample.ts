import { measurementError } from '../errors.js';

/**
 * Predictions with binomial outcomes: row i says that each of `trials[i]` independent chances succeeds with
 * `probability[i]`, and `successes[i]` of them did. Ordinary binary labels are the case trials = 1.
 */
export interface BinomialSample {
  /** [nRows], each in [0, 1]. */
  readonly probability: ArrayLike<number>;
  /** [nRows], 0 ≤ successes ≤ trials; need not be whole (down-weighted counts are allowed). */
  readonly successes: ArrayLike<number>;
  /** [nRows], ≥ 0; every row counts as one trial when absent. */
  readonly trials?: ArrayLike<number> | undefined;
  /** [nRows], ≥ 0; 1 when absent. Weight 2 means the same as the row standing there twice. */
  readonly weights?: ArrayLike<number> | undefined;
}

/** A checked sample: mass of successes and failures per row, weights applied. */
export interface CheckedSample {
  readonly nRows: number;
  readonly probability: ArrayLike<number>;
  /** weight × successes */
  readonly positive: Float64Array;
  /** weight × (trials − successes) */
  readonly negative: Float64Array;
  readonly totalPositive: number;
  readonly totalNegative: number;
}

/**
 * Checks a sample once and turns counts and weights into masses. O(n).
 * @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE naming column and row; _EMPTY when nothing has weight
 */
export function checkSample(sample: BinomialSample): CheckedSample {
  const { probability, successes, trials, weights } = sample;
  const nRows = probability.length;
  checkLength('successes', successes, nRows);
  if (trials !== undefined) checkLength('trials', trials, nRows);
  if (weights !== undefined) checkLength('weights', weights, nRows);
  const positive = new Float64Array(nRows);
  const negative = new Float64Array(nRows);
  let totalPositive = 0;
  let totalNegative = 0;
  for (let i = 0; i < nRows; i++) {
    const p = finite('probability', probability, i);
    const s = finite('successes', successes, i);
    const n = trials === undefined ? 1 : finite('trials', trials, i);
    const w = weights === undefined ? 1 : finite('weights', weights, i);
    if (p < 0 || p > 1) throw outOfRange('probability', i, p, '0 … 1');
    if (n < 0) throw outOfRange('trials', i, n, 'at least 0');
    if (s < 0 || s > n) throw outOfRange('successes', i, s, `0 … trials (${n})`);
    if (w < 0) throw outOfRange('weights', i, w, 'at least 0');
    positive[i] = w * s;
    negative[i] = w * (n - s);
    totalPositive += w * s;
    totalNegative += w * (n - s);
  }
  if (!(totalPositive + totalNegative > 0)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_EMPTY',
      nRows === 0 ? 'the sample has no rows' : `none of ${nRows} rows has weight and trials`,
    );
  }
  return { nRows, probability, positive, negative, totalPositive, totalNegative };
}

export function requireBothClasses(sample: CheckedSample, metric: string): void {
  if (!(sample.totalPositive > 0) || !(sample.totalNegative > 0)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SINGLE_CLASS',
      `${metric} is undefined: the sample has no ${sample.totalPositive > 0 ? 'failures' : 'successes'}`,
    );
  }
}

export function checkLength(name: string, column: ArrayLike<number>, expected: number): void {
  if (column.length !== expected) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SHAPE',
      `${name} has ${column.length} rows where ${expected} are expected`,
      { details: { column: name, rows: column.length, expected } },
    );
  }
}

export function finite(name: string, column: ArrayLike<number>, row: number): number {
  const value = column[row];
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw measurementError('WAGGLE_MEASUREMENT_NOT_FINITE', `${name}[${row}] is ${String(value)}`, {
      details: { column: name, row },
    });
  }
  return value;
}

export function outOfRange(name: string, row: number, value: number, allowed: string): Error {
  return measurementError(
    'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
    `${name}[${row}] is ${value}, allowed is ${allowed}`,
    { details: { column: name, row, value } },
  );
}

/** Row numbers in descending order of `key`; equal keys keep their row order. O(n log n). */
export function descendingOrder(key: ArrayLike<number>): Uint32Array {
  const order = new Uint32Array(key.length);
  for (let i = 0; i < order.length; i++) order[i] = i;
  return order.sort((a, b) => key[b]! - key[a]! || a - b);
}
