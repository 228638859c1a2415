import { optionNames } from '@waggle/core';
import { type BacktestOptions, backtest } from '../backtest.js';
import { forecastingError } from '../errors.js';
import {
  checkHorizon,
  checkOptions,
  checkSeries,
  checkWhole,
  constantForecast,
  type FittedSeries,
  isConstant,
  type SeriesModel,
} from '../series.js';
import { autoregression, seasonalLags } from './autoregression.js';
import { decomposed } from './decomposed.js';
import { ets } from './ets.js';
import { logarithmic } from './logarithmic.js';
import { seasonalNaive } from './seasonal-naive.js';
import { theta } from './theta.js';

/**
 * Weighted mean of several fitted models. Models of one series err together, so deviations are added as if errors were
 * perfectly correlated: an upper bound.
 * @param weights ≥ 0, of sum 1
 */
function weighted(parts: readonly { fitted: FittedSeries; weight: number }[]): FittedSeries {
  return {
    name: parts.map(({ fitted, weight }) => `${weight.toFixed(2)} ${fitted.name}`).join(' + '),
    forecast(horizon) {
      checkHorizon(horizon);
      const mean = new Float64Array(horizon);
      const deviation = new Float64Array(horizon);
      for (const { fitted, weight } of parts) {
        const own = fitted.forecast(horizon);
        for (let h = 0; h < horizon; h++) {
          mean[h]! += weight * own.mean[h]!;
          deviation[h]! += weight * own.deviation[h]!;
        }
      }
      return { mean, deviation };
    },
  };
}

/** The plain mean of several models (Clemen 1989: hard to beat). @throws WAGGLE_FORECASTING_ARGUMENT without models */
export function combination(models: readonly SeriesModel[]): SeriesModel {
  if (models.length === 0) {
    throw forecastingError('WAGGLE_FORECASTING_ARGUMENT', 'a combination needs at least one model');
  }
  return {
    name: `mean of ${models.map((m) => m.name).join(', ')}`,
    fit: (y) => weighted(models.map((m) => ({ fitted: m.fit(y), weight: 1 / models.length }))),
  };
}

export interface ChosenOptions extends BacktestOptions {
  readonly models: readonly SeriesModel[];
  /**
   * `best` takes the model with the smallest mean loss; a number weighs every model by loss to the power of minus that
   * number, which hedges. Default 2 (inverse squared errors, Bates & Granger 1969).
   */
  readonly weighing?: 'best' | number;
  /** Models that weigh less than this share are not fitted again. Default 0.05. */
  readonly leastWeight?: number;
}

/**
 * Chooses or weighs models by a rolling-origin backtest on the series itself; nothing after it is looked at. What is too short
 * to be tested gets the first model that can be fitted, so list them best first.
 */
export function chosenByBacktest(options: ChosenOptions): SeriesModel {
  const { models } = options;
  const weighing = options.weighing ?? 2;
  const least = options.leastWeight ?? 0.05;
  if (models.length === 0) {
    throw forecastingError('WAGGLE_FORECASTING_ARGUMENT', 'there is no model to choose from');
  }
  const name = `chosen of ${models.length}`;
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, 1, name);
      if (isConstant(y)) return constantForecast(name, y[0]!);
      const losses = lossesOf(y, options);
      const smallest = Math.min(...losses);
      if (!Number.isFinite(smallest)) return fitFirst(models, y);
      const raw = losses.map((loss) => {
        if (weighing === 'best') return loss === smallest ? 1 : 0;
        // A loss of zero takes everything.
        if (smallest === 0) return loss === 0 ? 1 : 0;
        return (smallest / loss) ** weighing;
      });
      if (weighing === 'best') raw.fill(0, raw.indexOf(1) + 1);
      const total = raw.reduce((sum, w) => sum + w, 0);
      const kept = raw.map((w) => (w / total < least ? 0 : w));
      const keptTotal = kept.reduce((sum, w) => sum + w, 0);
      const parts = models.flatMap((model, i) =>
        kept[i]! > 0 ? [{ fitted: model.fit(y), weight: kept[i]! / keptTotal }] : [],
      );
      return parts.length === 1 ? parts[0]!.fitted : weighted(parts);
    },
  };
}

function lossesOf(y: Float64Array, options: ChosenOptions): number[] {
  try {
    return backtest(y, options.models, options).map((result) => result.meanLoss);
  } catch (error) {
    if ((error as { code?: string }).code !== 'WAGGLE_FORECASTING_TOO_SHORT') throw error;
    return options.models.map(() => Number.POSITIVE_INFINITY);
  }
}

function fitFirst(models: readonly SeriesModel[], y: Float64Array): FittedSeries {
  let last: unknown;
  for (const model of models) {
    try {
      return model.fit(y);
    } catch (error) {
      if ((error as { code?: string }).code !== 'WAGGLE_FORECASTING_TOO_SHORT') throw error;
      last = error;
    }
  }
  throw last;
}

export interface AutomaticOptions {
  /** Lengths of the seasons, such as [24, 168] for hours; [] for none. */
  readonly seasons: readonly number[];
  /** How far ahead forecasts will be asked for: what the backtest measures. */
  readonly horizon: number;
  /** Default 2. */
  readonly nOrigins?: number;
}

const OPTIONS = optionNames<AutomaticOptions>({ seasons: true, horizon: true, nOrigins: true });

/**
 * What to use without knowing the series: autoregression on seasonal lags, plain and on logarithms, decomposition with Theta,
 * and the seasonal naive forecasts; without seasons exponential smoothing, Theta and the last value. They are weighed by what
 * they would have brought lately.
 */
export function automatic(options: AutomaticOptions): SeriesModel {
  checkOptions(options, OPTIONS);
  if (!Array.isArray(options.seasons)) {
    throw forecastingError(
      'WAGGLE_FORECASTING_ARGUMENT',
      `seasons must be a list of season lengths, [] for none, got ${String(options.seasons)}`,
    );
  }
  for (const season of options.seasons) checkWhole(season, 1, 'a season');
  checkHorizon(options.horizon);
  const seasons = [...options.seasons].sort((a, b) => a - b);
  const models: SeriesModel[] = [];
  if (seasons.length > 0) {
    const ar = autoregression({ lags: seasonalLags(seasons) });
    models.push(
      ar,
      logarithmic(ar),
      decomposed({ seasons, trend: theta() }),
      seasonalNaive(seasons.at(-1)!),
      seasonalNaive(seasons[0]!),
    );
  } else {
    models.push(ets(), theta(), seasonalNaive(1));
  }
  const chosen = chosenByBacktest({
    models,
    horizon: options.horizon,
    nOrigins: options.nOrigins ?? 2,
  });
  return { ...chosen, name: `automatic(${seasons.join(',')})` };
}
