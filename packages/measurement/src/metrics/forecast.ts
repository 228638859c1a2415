import { measurementError } from '../errors.js';
import { checkLength, finite, outOfRange } from './sample.js';

/** Point forecasts beside what came. */
export interface ForecastSample {
  /** [nRows], finite. */
  readonly actual: ArrayLike<number>;
  /** [nRows], finite; for a quantile forecast the forecast quantile. */
  readonly forecast: ArrayLike<number>;
  /** [nRows], ≥ 0; 1 when absent. Weight 2 means the same as the row standing there twice. */
  readonly weights?: ArrayLike<number> | undefined;
}

/** Interval forecasts beside what came. */
export interface IntervalSample {
  /** [nRows], finite. */
  readonly actual: ArrayLike<number>;
  /** [nRows] each, finite, lower ≤ upper. */
  readonly lower: ArrayLike<number>;
  readonly upper: ArrayLike<number>;
  /** [nRows], ≥ 0; 1 when absent. */
  readonly weights?: ArrayLike<number> | undefined;
}

/** Σ w·of(actual, forecast) and Σ w over checked rows; O(n). */
function weighted(
  sample: ForecastSample,
  of: (actual: number, forecast: number) => number,
): { sum: number; mass: number } {
  const { actual, forecast, weights } = sample;
  const nRows = actual.length;
  checkLength('forecast', forecast, nRows);
  if (weights !== undefined) checkLength('weights', weights, nRows);
  let sum = 0;
  let mass = 0;
  for (let i = 0; i < nRows; i++) {
    const a = finite('actual', actual, i);
    const f = finite('forecast', forecast, i);
    const w = weightAt(weights, i);
    sum += w * of(a, f);
    mass += w;
  }
  if (!(mass > 0)) throw emptyOf(nRows);
  return { sum, mass };
}

function weightAt(weights: ArrayLike<number> | undefined, row: number): number {
  if (weights === undefined) return 1;
  const w = finite('weights', weights, row);
  if (w < 0) throw outOfRange('weights', row, w, 'at least 0');
  return w;
}

const emptyOf = (nRows: number): Error =>
  measurementError(
    'WAGGLE_MEASUREMENT_EMPTY',
    nRows === 0 ? 'the sample has no rows' : `none of ${nRows} rows has weight`,
  );

/** Mean absolute error, Σ w·|a − f| / Σ w. O(n). @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE, _EMPTY */
export function meanAbsoluteError(sample: ForecastSample): number {
  const { sum, mass } = weighted(sample, (a, f) => Math.abs(a - f));
  return sum / mass;
}

/**
 * Weighted mean absolute percentage error, Σ w·|a − f| / Σ w·|a|: the share of the total that was forecast in the
 * wrong place. Unlike MAPE it is defined where single actuals are 0. O(n).
 * @throws WAGGLE_MEASUREMENT_SINGLE_CLASS when every actual is 0, and as `meanAbsoluteError`
 */
export function wmape(sample: ForecastSample): number {
  const error = weighted(sample, (a, f) => Math.abs(a - f)).sum;
  const total = weighted(sample, (a) => Math.abs(a)).sum;
  if (!(total > 0)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SINGLE_CLASS',
      'WMAPE is undefined: every actual is 0',
    );
  }
  return error / total;
}

/**
 * Symmetric mean absolute percentage error as the M competitions take it (Makridakis 1993): the mean of
 * 2·|a − f| / (|a| + |f|), in [0, 2], a row with both at 0 counting as 0. O(n). @throws as `meanAbsoluteError`
 */
export function smape(sample: ForecastSample): number {
  const { sum, mass } = weighted(sample, (a, f) => {
    const size = Math.abs(a) + Math.abs(f);
    return size === 0 ? 0 : (2 * Math.abs(a - f)) / size;
  });
  return sum / mass;
}

/**
 * What MASE divides by: the mean |y_t − y_{t−period}| of a series' own history, the error of the seasonal naive
 * forecast in sample (Hyndman & Koehler 2006). O(n).
 * @param history the training part of the series, in time order, longer than `period`
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE, _EMPTY when the history is too short, _SINGLE_CLASS when it never changes
 */
export function seasonalNaiveScale(history: ArrayLike<number>, period = 1): number {
  if (!Number.isInteger(period) || period < 1) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `period is ${period}, allowed is a whole number from 1`,
    );
  }
  const n = history.length - period;
  if (n < 1) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_EMPTY',
      `${history.length} values are not longer than a period of ${period}`,
    );
  }
  let sum = 0;
  for (let t = 0; t < n; t++) {
    sum += Math.abs(finite('history', history, t + period) - finite('history', history, t));
  }
  if (sum === 0) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SINGLE_CLASS',
      'MASE is undefined: the seasonal naive forecast of the history is perfect',
    );
  }
  return sum / n;
}

/**
 * Mean absolute scaled error: |a − f| over the in-sample error of the seasonal naive forecast; below 1 is better
 * than that forecast was on the history. O(n).
 * @param scale `seasonalNaiveScale` of the series, or one per row where the rows come from several series
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE for a scale that is not above 0, and as `meanAbsoluteError`
 */
export function mase(
  sample: ForecastSample & { readonly scale: number | ArrayLike<number> },
): number {
  const { scale } = sample;
  if (typeof scale !== 'number') checkLength('scale', scale, sample.actual.length);
  let row = 0;
  const { sum, mass } = weighted(sample, (a, f) => {
    const s = typeof scale === 'number' ? scale : finite('scale', scale, row);
    if (!(s > 0 && Number.isFinite(s))) throw outOfRange('scale', row, s, 'above 0');
    row++;
    return Math.abs(a - f) / s;
  });
  return sum / mass;
}

/**
 * Pinball loss of a quantile forecast: mean of (a − f)·τ where the actual lies above and (f − a)·(1 − τ) where it
 * lies below (Koenker & Bassett 1978); least for the true quantile. O(n).
 * @param quantile τ in (0, 1)
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE, and as `meanAbsoluteError`
 */
export function pinballLoss(sample: ForecastSample, quantile: number): number {
  if (!(quantile > 0 && quantile < 1)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `quantile is ${quantile}, allowed is above 0 and below 1`,
    );
  }
  const { sum, mass } = weighted(sample, (a, f) =>
    a >= f ? quantile * (a - f) : (1 - quantile) * (f - a),
  );
  return sum / mass;
}

/**
 * Share of the actuals that lie within their interval, limits included: P10–P90 should cover 80 %. O(n).
 * @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE where lower > upper, _EMPTY
 */
export function intervalCoverage(sample: IntervalSample): number {
  return coverageBy(sample, (actual, lower, upper) => Number(actual >= lower && actual <= upper));
}

/**
 * Coverage of intervals for whole-number counts: the share of actual + U within, U uniform on [0, 1), on average over U. No two
 * whole numbers enclose just 80 % of a small count; the limits are therefore quantiles of the count plus such a number, and a
 * count that lies across a limit is inside in part. It is the share of the randomised probability integral transform between two
 * levels (Czado, Gneiting & Held 2009) without its noise. O(n).
 * @param sample `actual` whole numbers, `lower` and `upper` quantiles of actual + U
 * @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE where lower > upper or a count is not whole, _EMPTY
 */
export function countCoverage(sample: IntervalSample): number {
  return coverageBy(sample, (actual, lower, upper, row) => {
    if (!Number.isInteger(actual)) throw outOfRange('actual', row, actual, 'a whole number');
    return Math.max(0, Math.min(actual + 1, upper) - Math.max(actual, lower));
  });
}

/** Weighted mean of how far actuals lie within their checked intervals, 0 … 1. O(n). */
function coverageBy(
  { actual, lower, upper, weights }: IntervalSample,
  inside: (actual: number, lower: number, upper: number, row: number) => number,
): number {
  const nRows = actual.length;
  checkLength('lower', lower, nRows);
  checkLength('upper', upper, nRows);
  if (weights !== undefined) checkLength('weights', weights, nRows);
  let sum = 0;
  let mass = 0;
  for (let i = 0; i < nRows; i++) {
    const a = finite('actual', actual, i);
    const low = finite('lower', lower, i);
    const high = finite('upper', upper, i);
    if (low > high) throw outOfRange('lower', i, low, `at most upper (${high})`);
    const w = weightAt(weights, i);
    sum += w * inside(a, low, high, i);
    mass += w;
  }
  if (!(mass > 0)) throw emptyOf(nRows);
  return sum / mass;
}
