import {
  checkHorizon,
  checkSeries,
  checkWhole,
  type FittedSeries,
  type SeriesModel,
} from '../series.js';

/**
 * The value of one season ago, repeated; `season` 1 is the last value. Errors grow with the root of the number of seasons
 * ahead, as those of a seasonal random walk do (Hyndman & Athanasopoulos, "Forecasting", §5.5).
 */
export function seasonalNaive(season: number): SeriesModel {
  checkWhole(season, 1, 'season');
  const name = `SeasonalNaive(${season})`;
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, season, name);
      const last = y.slice(y.length - season);
      let squares = 0;
      for (let t = season; t < y.length; t++) squares += (y[t]! - y[t - season]!) ** 2;
      const sigma = y.length > season ? Math.sqrt(squares / (y.length - season)) : 0;
      return {
        name,
        forecast(horizon) {
          checkHorizon(horizon);
          return {
            mean: Float64Array.from({ length: horizon }, (_, h) => last[h % season]!),
            deviation: Float64Array.from(
              { length: horizon },
              (_, h) => sigma * Math.sqrt(Math.floor(h / season) + 1),
            ),
          };
        },
      };
    },
  };
}
