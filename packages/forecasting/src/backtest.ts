import { forecastingError } from './errors.js';
import { checkWhole, type SeriesModel } from './series.js';

export interface BacktestOptions {
  readonly horizon: number;
  /** How many forecasts are made. Default 3. */
  readonly nOrigins?: number;
  /** Values between two origins. Default: the horizon, so that no value is forecast twice. */
  readonly step?: number;
  /** Shortest history that a forecast is made from. Default 1. */
  readonly minHistory?: number;
  /** What a forecast costs. Default: mean absolute error. */
  readonly loss?: (actual: Float64Array, forecast: Float64Array) => number;
}

export interface Backtest {
  readonly model: string;
  /** [nOrigins] oldest first; Infinity where the model could not be fitted. */
  readonly losses: readonly number[];
  readonly meanLoss: number;
}

/**
 * Ends of the histories of a rolling-origin evaluation (Tashman 2000), oldest first; each is followed by a whole horizon.
 * @throws WAGGLE_FORECASTING_ARGUMENT
 */
export function rollingOrigins(length: number, options: BacktestOptions): number[] {
  const { horizon } = options;
  const nOrigins = options.nOrigins ?? 3;
  const step = options.step ?? horizon;
  checkWhole(horizon, 1, 'horizon');
  checkWhole(nOrigins, 1, 'nOrigins');
  checkWhole(step, 1, 'step');
  const least = Math.max(1, options.minHistory ?? 1);
  const origins: number[] = [];
  for (let i = nOrigins - 1; i >= 0; i--) {
    const origin = length - horizon - i * step;
    if (origin >= least) origins.push(origin);
  }
  return origins;
}

/**
 * Rolling-origin evaluation: every model forecasts from each origin what came next, knowing only what was before. A model that
 * a history is too short for has an infinite loss there. Deterministic; nOrigins fits a model.
 * @throws WAGGLE_FORECASTING_TOO_SHORT when the series has no origin at all
 */
export function backtest(
  y: Float64Array,
  models: readonly SeriesModel[],
  options: BacktestOptions,
): Backtest[] {
  const origins = rollingOrigins(y.length, options);
  if (origins.length === 0) {
    throw forecastingError(
      'WAGGLE_FORECASTING_TOO_SHORT',
      `a backtest over ${options.horizon} values needs a longer series than ${y.length}`,
    );
  }
  const loss = options.loss ?? meanAbsoluteError;
  return models.map((model) => {
    const losses = origins.map((origin) => {
      const forecast = forecastOrNothing(model, y.slice(0, origin), options.horizon);
      if (forecast === undefined) return Number.POSITIVE_INFINITY;
      const value = loss(y.slice(origin, origin + options.horizon), forecast);
      return Number.isFinite(value) ? value : Number.POSITIVE_INFINITY;
    });
    return {
      model: model.name,
      losses,
      meanLoss: losses.reduce((sum, value) => sum + value, 0) / losses.length,
    };
  });
}

function forecastOrNothing(
  model: SeriesModel,
  history: Float64Array,
  horizon: number,
): Float64Array | undefined {
  try {
    return model.fit(history).forecast(horizon).mean;
  } catch (error) {
    if ((error as { code?: string }).code === 'WAGGLE_FORECASTING_TOO_SHORT') return undefined;
    throw error;
  }
}

export function meanAbsoluteError(actual: Float64Array, forecast: Float64Array): number {
  let sum = 0;
  for (let h = 0; h < actual.length; h++) sum += Math.abs(actual[h]! - forecast[h]!);
  return sum / actual.length;
}
