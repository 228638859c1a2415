import { unknownOption, unknownOptionText } from '@waggle/core';
import { forecastingError } from './errors.js';
import { normalQuantile } from './normal.js';

/** What a model knows after fitting: a mean per step ahead and how far off it expects to be. */
export interface SeriesForecast {
  /** [horizon] */
  readonly mean: Float64Array;
  /** [horizon] standard deviation of the error; 0 where the model saw no error at all. */
  readonly deviation: Float64Array;
}

export interface FittedSeries {
  /** Which form was chosen, such as `ETS(A,Ad,A)`. */
  readonly name: string;
  /** @throws WAGGLE_FORECASTING_ARGUMENT for a horizon that is not a whole number above 0 */
  forecast(horizon: number): SeriesForecast;
}

/** A way to forecast one evenly spaced series. Pure: the same series gives the same forecast. */
export interface SeriesModel {
  readonly name: string;
  /**
   * @param y oldest first; borrowed for the call, never written
   * @throws WAGGLE_FORECASTING_SERIES, WAGGLE_FORECASTING_TOO_SHORT
   */
  fit(y: Float64Array): FittedSeries;
}

/** @throws WAGGLE_FORECASTING_SERIES, WAGGLE_FORECASTING_TOO_SHORT */
export function checkSeries(y: Float64Array, least: number, what: string): void {
  // The tag, not instanceof: vm contexts and test runners have their own constructors.
  const tag = Object.prototype.toString.call(y).slice(8, -1);
  if (tag !== 'Float64Array') {
    throw forecastingError(
      'WAGGLE_FORECASTING_SERIES',
      `the series must be a Float64Array, not ${tag}`,
      { remedy: 'Pass Float64Array.from(values).' },
    );
  }
  if (y.length < least) {
    throw forecastingError(
      'WAGGLE_FORECASTING_TOO_SHORT',
      `${what} needs at least ${least} values, got ${y.length}`,
    );
  }
  for (let i = 0; i < y.length; i++) {
    if (!Number.isFinite(y[i]!)) {
      throw forecastingError('WAGGLE_FORECASTING_SERIES', `value ${i} of the series is ${y[i]}`);
    }
  }
}

/** @throws WAGGLE_FORECASTING_ARGUMENT */
export function checkWhole(value: number, least: number, what: string): void {
  if (!Number.isInteger(value) || value < least) {
    throw forecastingError(
      'WAGGLE_FORECASTING_ARGUMENT',
      `${what} must be a whole number of at least ${least}, got ${value}`,
    );
  }
}

/**
 * Settings that are not among `names` are refused: a misspelt season would be none, and the forecast another one.
 * @throws WAGGLE_FORECASTING_ARGUMENT
 */
export function checkOptions(options: object, names: ReadonlySet<string>): void {
  if (typeof options !== 'object' || options === null) {
    throw forecastingError(
      'WAGGLE_FORECASTING_ARGUMENT',
      `options must be an object, not ${String(options)}`,
    );
  }
  const unknown = unknownOption(options, names);
  if (unknown === undefined) return;
  throw forecastingError('WAGGLE_FORECASTING_ARGUMENT', unknownOptionText(unknown, names));
}

/** @throws WAGGLE_FORECASTING_ARGUMENT */
export function checkChoice(value: string, choices: readonly string[], what: string): void {
  if (choices.includes(value)) return;
  throw forecastingError(
    'WAGGLE_FORECASTING_ARGUMENT',
    `${what} must be one of ${choices.join(', ')}, got ${value}`,
  );
}

export function checkHorizon(horizon: number): void {
  checkWhole(horizon, 1, 'horizon');
}

/**
 * Quantiles under normal errors: mean + z·deviation, so they never cross.
 * @param levels ascending, each in (0, 1)
 * @returns float64 [nLevels × horizon], row-major; O(nLevels · horizon)
 * @throws WAGGLE_FORECASTING_ARGUMENT
 */
export function normalQuantiles(
  { mean, deviation }: SeriesForecast,
  levels: readonly number[],
): Float64Array {
  checkLevels(levels);
  const horizon = mean.length;
  const out = new Float64Array(levels.length * horizon);
  levels.forEach((level, l) => {
    const z = normalQuantile(level);
    for (let h = 0; h < horizon; h++) out[l * horizon + h] = mean[h]! + z * deviation[h]!;
  });
  return out;
}

/** @throws WAGGLE_FORECASTING_ARGUMENT unless ascending and inside (0, 1) */
export function checkLevels(levels: readonly number[]): void {
  let below = 0;
  for (const level of levels) {
    if (!(level > below && level < 1)) {
      throw forecastingError(
        'WAGGLE_FORECASTING_ARGUMENT',
        `quantile levels must ascend inside (0, 1), got ${levels.join(', ')}`,
      );
    }
    below = level;
  }
  if (levels.length === 0) {
    throw forecastingError('WAGGLE_FORECASTING_ARGUMENT', 'no quantile levels were given');
  }
}

export function mean(y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < y.length; i++) sum += y[i]!;
  return sum / y.length;
}

export function isConstant(y: Float64Array): boolean {
  for (let i = 1; i < y.length; i++) if (y[i] !== y[0]) return false;
  return true;
}

/** A series that never moved: it stays. */
export function constantForecast(name: string, value: number): FittedSeries {
  return {
    name,
    forecast(horizon) {
      checkHorizon(horizon);
      return { mean: new Float64Array(horizon).fill(value), deviation: new Float64Array(horizon) };
    },
  };
}
