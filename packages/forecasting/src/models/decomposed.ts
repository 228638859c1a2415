import {
  checkHorizon,
  checkSeries,
  checkWhole,
  constantForecast,
  type FittedSeries,
  isConstant,
  type SeriesModel,
} from '../series.js';
import { type MstlOptions, mstl } from './stl.js';

export interface DecomposedOptions extends MstlOptions {
  readonly seasons: readonly number[];
  /** Continues what is left without seasons. */
  readonly trend: SeriesModel;
}

/**
 * Seasons by MSTL, each repeated from its last cycle; a model without season continues the rest (Bandara et al. 2021; `stlm`
 * and `mstl` of Hyndman's forecast package). Deviations are the trend model's.
 */
export function decomposed(options: DecomposedOptions): SeriesModel {
  const name = `MSTL(${options.seasons.join(',')})+${options.trend.name}`;
  for (const s of options.seasons) checkWhole(s, 2, 'season');
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, 4, name);
      if (isConstant(y)) return constantForecast(name, y[0]!);
      const parts = mstl(y, options.seasons, options);
      const trend = options.trend.fit(parts.adjusted);
      return {
        name: `MSTL(${parts.seasons.join(',')})+${trend.name}`,
        forecast(horizon) {
          checkHorizon(horizon);
          const rest = trend.forecast(horizon);
          const mean = rest.mean.slice();
          parts.seasons.forEach((season, i) => {
            const own = parts.seasonals[i]!;
            for (let h = 0; h < horizon; h++) {
              mean[h]! += own[y.length - season + (h % season)]!;
            }
          });
          return { mean, deviation: rest.deviation };
        },
      };
    },
  };
}
