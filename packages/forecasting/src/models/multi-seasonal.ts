import { nelderMead } from '../minimise.js';
import {
  checkHorizon,
  checkSeries,
  checkWhole,
  constantForecast,
  type FittedSeries,
  isConstant,
  mean,
  type SeriesModel,
} from '../series.js';
import { mstl } from './stl.js';

/**
 * Exponential smoothing with several additive seasons and a first-order correction of the errors (Taylor 2003; the
 * deviations as in De Livera, Hyndman & Snyder 2011, without trend). Parameters by least squares one step ahead, first
 * states from MSTL. O(n) a pass, some hundred passes.
 * @throws WAGGLE_FORECASTING_TOO_SHORT below two of the longest season
 */
export function multiSeasonal(seasons: readonly number[]): SeriesModel {
  for (const s of seasons) checkWhole(s, 2, 'season');
  const name = `MultiSeasonal(${seasons.join(',')})`;
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, 2 * Math.max(...seasons), name);
      if (isConstant(y)) return constantForecast(name, y[0]!);
      const parts = mstl(y, seasons);
      const nSeasons = parts.seasons.length;
      const start = parts.seasonals.map((own, i) => own.slice(0, parts.seasons[i]));
      const level0 = mean(parts.adjusted.subarray(0, Math.min(y.length, parts.seasons[0]!)));
      const states = start.map((own) => own.slice());
      // Coordinates are ln odds: level, each season, and the correction between −1 and 1.
      const decode = (p: Float64Array) => ({
        alpha: 1 / (1 + Math.exp(-p[0]!)),
        gammas: Array.from({ length: nSeasons }, (_, i) => 1 / (1 + Math.exp(-p[1 + i]!))),
        phi: Math.tanh(p[1 + nSeasons]!),
      });
      const run = (p: Float64Array) => {
        const { alpha, gammas, phi } = decode(p);
        states.forEach((own, i) => {
          own.set(start[i]!);
        });
        let level = level0;
        let last = 0;
        let squares = 0;
        for (let t = 0; t < y.length; t++) {
          let mu = level;
          for (let i = 0; i < nSeasons; i++) mu += states[i]![t % parts.seasons[i]!]!;
          const raw = y[t]! - mu;
          const error = raw - phi * last;
          squares += error * error;
          level += alpha * error;
          for (let i = 0; i < nSeasons; i++) {
            states[i]![t % parts.seasons[i]!]! += gammas[i]! * error;
          }
          last = raw;
        }
        return { level, last, squares };
      };
      const first = Float64Array.from({ length: nSeasons + 2 }, (_, i) =>
        i === 0 ? -2 : i <= nSeasons ? -2 : 0.8,
      );
      const found = nelderMead(
        (p) => {
          const { squares } = run(p);
          return Number.isFinite(squares) ? squares : Number.POSITIVE_INFINITY;
        },
        first,
        first.map(() => 0.8),
        { maxEvaluations: 150 * first.length, tolerance: 1e-8 },
      );
      const { level, last, squares } = run(found.x);
      const { alpha, gammas, phi } = decode(found.x);
      const sigma = Math.sqrt(squares / y.length);
      const final = states.map((own) => own.slice());
      return {
        name,
        forecast(horizon) {
          checkHorizon(horizon);
          const means = new Float64Array(horizon);
          const deviation = new Float64Array(horizon);
          let variance = 1;
          for (let h = 0; h < horizon; h++) {
            let mu = level + phi ** (h + 1) * last;
            for (let i = 0; i < nSeasons; i++) {
              mu += final[i]![(y.length + h) % parts.seasons[i]!]!;
            }
            means[h] = mu;
            if (h > 0) {
              let c = alpha + phi ** h;
              for (let i = 0; i < nSeasons; i++) {
                if (h % parts.seasons[i]! === 0) c += gammas[i]!;
              }
              variance += c * c;
            }
            deviation[h] = sigma * Math.sqrt(variance);
          }
          return { mean: means, deviation };
        },
      };
    },
  };
}
