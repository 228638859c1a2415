import { solveSymmetric } from '../least-squares.js';
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

export interface AutoregressionOptions {
  /** Which earlier values the next one is regressed on, ascending. */
  readonly lags: readonly number[];
  /** Weight of the ridge penalty, in variances of the series. Default: chosen by generalised cross-validation. */
  readonly ridge?: number;
}

/** Lags of the recent past and of each season with its neighbours: 1, 2, 3, s − 1, s, s + 1. */
export function seasonalLags(seasons: readonly number[], recent = 3): number[] {
  const lags = new Set(Array.from({ length: recent }, (_, i) => i + 1));
  for (const s of seasons) for (const lag of [s - 1, s, s + 1]) if (lag > 0) lags.add(lag);
  return [...lags].sort((a, b) => a - b);
}

const RIDGES = [1e-4, 1e-3, 1e-2, 1e-1, 1] as const;

/**
 * A linear autoregression with ridge penalty on chosen lags of the differences from the series' mean, iterated ahead. The
 * penalty that leaves the least generalised cross-validation error is taken (Golub, Heath & Wahba 1979). O(n · nLags²)
 * @throws WAGGLE_FORECASTING_TOO_SHORT below two times the longest lag
 */
export function autoregression(options: AutoregressionOptions): SeriesModel {
  const { lags } = options;
  for (const lag of lags) checkWhole(lag, 1, 'lag');
  const longest = Math.max(...lags);
  const p = lags.length;
  const name = `AR(${p} lags to ${longest})`;
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, longest + Math.max(2 * p, 10), name);
      if (isConstant(y)) return constantForecast(name, y[0]!);
      const n = y.length;
      const centre = mean(y);
      const x = y.map((v) => v - centre);
      const rows = n - longest;
      const gram = new Float64Array(p * p);
      const cross = new Float64Array(p);
      let total = 0;
      for (let i = 0; i < p; i++) {
        for (let j = 0; j <= i; j++) {
          let sum = 0;
          for (let t = longest; t < n; t++) sum += x[t - lags[i]!]! * x[t - lags[j]!]!;
          gram[i * p + j] = sum;
          gram[j * p + i] = sum;
        }
        let sum = 0;
        for (let t = longest; t < n; t++) sum += x[t - lags[i]!]! * x[t]!;
        cross[i] = sum;
      }
      for (let t = longest; t < n; t++) total += x[t]! ** 2;
      const unit = total;
      let best: { weights: Float64Array; score: number; squares: number } | undefined;
      for (const ridge of options.ridge === undefined ? RIDGES : [options.ridge]) {
        const penalty = ridge * (unit / rows);
        const weights = cross.slice();
        solveSymmetric(gram.slice(), weights, p, penalty);
        let squares = total;
        for (let i = 0; i < p; i++) {
          squares -= 2 * weights[i]! * cross[i]!;
          for (let j = 0; j < p; j++) squares += weights[i]! * weights[j]! * gram[i * p + j]!;
        }
        squares = Math.max(0, squares);
        const freedom = effectiveParameters(gram, p, penalty);
        const score = squares / (1 - Math.min(0.99, (freedom + 1) / rows)) ** 2;
        if (best === undefined || score < best.score) best = { weights, score, squares };
      }
      const { weights, squares } = best!;
      const sigma = Math.sqrt(squares / Math.max(1, rows - p));
      return {
        name,
        forecast(horizon) {
          checkHorizon(horizon);
          const path = new Float64Array(n + horizon);
          path.set(x);
          const impulse = new Float64Array(horizon);
          const deviation = new Float64Array(horizon);
          let variance = 0;
          for (let h = 0; h < horizon; h++) {
            let sum = 0;
            let response = h === 0 ? 1 : 0;
            for (let i = 0; i < p; i++) {
              sum += weights[i]! * path[n + h - lags[i]!]!;
              if (h >= lags[i]!) response += weights[i]! * impulse[h - lags[i]!]!;
            }
            path[n + h] = sum;
            impulse[h] = response;
            variance += response * response;
            deviation[h] = sigma * Math.sqrt(variance);
          }
          return { mean: path.slice(n).map((v) => v + centre), deviation };
        },
      };
    },
  };
}

/** Trace of the hat matrix, Σ over columns of G(G + λI)⁻¹. O(p³ + p · p²) */
function effectiveParameters(gram: Float64Array, p: number, penalty: number): number {
  let trace = 0;
  for (let i = 0; i < p; i++) {
    const column = new Float64Array(p);
    for (let j = 0; j < p; j++) column[j] = gram[j * p + i]!;
    solveSymmetric(gram.slice(), column, p, penalty);
    trace += column[i]!;
  }
  return trace;
}
