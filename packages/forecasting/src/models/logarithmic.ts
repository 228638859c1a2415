import { checkHorizon, type FittedSeries, type SeriesModel } from '../series.js';

/**
 * A model on logarithms where every value is above zero, and as it is elsewhere: seasons and errors that grow with the level.
 * The forecast is the median of the implied log-normal; deviations to first order.
 */
export function logarithmic(model: SeriesModel): SeriesModel {
  return {
    name: `log ${model.name}`,
    fit(y): FittedSeries {
      if (y.length === 0 || !y.every((v) => v > 0)) return model.fit(y);
      const fitted = model.fit(y.map(Math.log));
      return {
        name: `log ${fitted.name}`,
        forecast(horizon) {
          checkHorizon(horizon);
          const inner = fitted.forecast(horizon);
          const mean = inner.mean.map(Math.exp);
          return { mean, deviation: inner.deviation.map((d, h) => d * mean[h]!) };
        },
      };
    },
  };
}
