import { forecastingError } from '../errors.js';
import { checkSeries, checkWhole, mean } from '../series.js';

export interface StlOptions {
  /** Values of one cycle that the seasonal smoother sees, odd, ≥ 7. Default 11. */
  readonly seasonalWindow?: number;
  /** 0 = local mean, 1 = local line, of a cycle's values. Default 0. */
  readonly seasonalDegree?: 0 | 1;
  /** Odd. Default: the smallest above 1.5·period / (1 − 1.5/seasonalWindow), as Cleveland et al. advise. */
  readonly trendWindow?: number;
  /** Passes. Default 2. */
  readonly inner?: number;
}

export interface StlParts {
  readonly trend: Float64Array;
  readonly seasonal: Float64Array;
  readonly remainder: Float64Array;
}

/** Weights (1 − (d/q)³)³ by distance, with q the furthest neighbour (Cleveland 1979). */
function tricube(distance: number, reach: number): number {
  if (distance <= 0.001 * reach) return 1;
  if (distance > 0.999 * reach) return 0;
  const r = distance / reach;
  return (1 - r * r * r) ** 3;
}

/**
 * Loess at one place over evenly spaced values y[from … from + n), neighbours [left, right]. `at`, `left` and `right` count
 * from `from`; `at` may lie outside, which extrapolates.
 */
function loessAt(
  y: Float64Array,
  o: { from: number; stride: number; n: number; window: number; degree: 0 | 1 },
  at: number,
  left: number,
  right: number,
): number {
  let reach = Math.max(at - left, right - at);
  if (o.window > o.n) reach += (o.window - o.n) >> 1;
  let weights = 0;
  let sx = 0;
  let sy = 0;
  let sxx = 0;
  let sxy = 0;
  for (let i = left; i <= right; i++) {
    const w = tricube(Math.abs(i - at), reach);
    if (w === 0) continue;
    const v = y[o.from + i * o.stride]!;
    const dx = i - at;
    weights += w;
    sx += w * dx;
    sy += w * v;
    sxx += w * dx * dx;
    sxy += w * dx * v;
  }
  if (o.degree === 0) return sy / weights;
  const mx = sx / weights;
  const spread = sxx / weights - mx * mx;
  const range = 0.001 * (o.n - 1);
  if (!(spread > range * range)) return sy / weights;
  const slope = (sxy / weights - (mx * sy) / weights) / spread;
  return sy / weights - slope * mx;
}

/**
 * Loess at 0 … n − 1. Away from the ends the weights are the same everywhere, and are computed once. With `jump` above 1 it
 * is computed at every so many places and drawn straight between, as the authors' own program does. O(n · window / jump)
 */
function loess(
  y: Float64Array,
  o: { from: number; stride: number; n: number; window: number; degree: 0 | 1 },
  into: { to: Float64Array; from: number; stride: number; jump: number },
): void {
  const { n, window } = o;
  const half = (window - 1) >> 1;
  const put = (i: number, value: number) => {
    into.to[into.from + i * into.stride] = value;
  };
  const weights = new Float64Array(window < n ? window : 0);
  let total = 0;
  for (let k = 0; k < weights.length; k++) {
    weights[k] = tricube(Math.abs(k - half), half);
    total += weights[k]!;
  }
  const at = (i: number): number => {
    if (window >= n) return loessAt(y, o, i, 0, n - 1);
    const left = Math.min(Math.max(0, i - half), n - window);
    // Symmetric weights: local line and local mean agree.
    if (i - half !== left) return loessAt(y, o, i, left, left + window - 1);
    let sum = 0;
    for (let k = 0; k < window; k++) sum += weights[k]! * y[o.from + (left + k) * o.stride]!;
    return sum / total;
  };
  let before = at(0);
  put(0, before);
  for (let i = 0; i < n - 1; ) {
    const next = Math.min(i + into.jump, n - 1);
    const value = at(next);
    for (let k = i + 1; k <= next; k++) {
      put(k, before + ((value - before) * (k - i)) / (next - i));
    }
    before = value;
    i = next;
  }
}

function movingAverage(x: Float64Array, n: number, window: number, into: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < window; i++) sum += x[i]!;
  into[0] = sum / window;
  for (let i = window; i < n; i++) {
    sum += x[i]! - x[i - window]!;
    into[i - window + 1] = sum / window;
  }
  return n - window + 1;
}

const oddAtLeast = (x: number): number => {
  const up = Math.ceil(x);
  return up % 2 === 0 ? up + 1 : up;
};

/**
 * Season and trend by loess (Cleveland, Cleveland, McRae & Terpenning 1990), without robustness weights. The seasonal part
 * may change from cycle to cycle. O(inner · n · (seasonalWindow + trendWindow + period))
 * @throws WAGGLE_FORECASTING_TOO_SHORT below two periods, WAGGLE_FORECASTING_ARGUMENT
 */
export function stl(y: Float64Array, period: number, options: StlOptions = {}): StlParts {
  checkWhole(period, 2, 'period');
  checkSeries(y, 2 * period, `a season of ${period}`);
  const seasonalWindow = options.seasonalWindow ?? 11;
  const degree = options.seasonalDegree ?? 0;
  const trendWindow =
    options.trendWindow ?? oddAtLeast((1.5 * period) / (1 - 1.5 / seasonalWindow));
  const lowPassWindow = oddAtLeast(period);
  const inner = options.inner ?? 2;
  checkWhole(inner, 1, 'inner');
  for (const [window, what] of [
    [seasonalWindow, 'seasonalWindow'],
    [trendWindow, 'trendWindow'],
  ] as const) {
    checkWhole(window, 3, what);
    if (window % 2 === 0) {
      throw forecastingError('WAGGLE_FORECASTING_ARGUMENT', `${what} must be odd, got ${window}`);
    }
  }
  const n = y.length;
  const trend = new Float64Array(n);
  const seasonal = new Float64Array(n);
  const detrended = new Float64Array(n);
  const cycles = new Float64Array(n + 2 * period);
  const a = new Float64Array(n + 2 * period);
  const b = new Float64Array(n + 2 * period);
  const low = new Float64Array(n);
  for (let round = 0; round < inner; round++) {
    for (let t = 0; t < n; t++) detrended[t] = y[t]! - trend[t]!;
    for (let phase = 0; phase < period; phase++) {
      const count = Math.floor((n - 1 - phase) / period) + 1;
      const o = { from: phase, stride: period, n: count, window: seasonalWindow, degree };
      // One value before and one behind, extrapolated, so that the averages below reach both ends.
      const right = Math.min(seasonalWindow, count) - 1;
      cycles[phase] = loessAt(detrended, o, -1, 0, right);
      loess(detrended, o, { to: cycles, from: phase + period, stride: period, jump: 1 });
      const left = Math.max(0, count - seasonalWindow);
      cycles[phase + (count + 1) * period] = loessAt(detrended, o, count, left, count - 1);
    }
    let length = movingAverage(cycles, n + 2 * period, period, a);
    length = movingAverage(a, length, period, b);
    length = movingAverage(b, length, 3, a);
    loess(
      a,
      { from: 0, stride: 1, n: length, window: lowPassWindow, degree: 1 },
      { to: low, from: 0, stride: 1, jump: Math.ceil(lowPassWindow / 10) },
    );
    for (let t = 0; t < n; t++) {
      seasonal[t] = cycles[t + period]! - low[t]!;
      detrended[t] = y[t]! - seasonal[t]!;
    }
    loess(
      detrended,
      { from: 0, stride: 1, n, window: trendWindow, degree: 1 },
      { to: trend, from: 0, stride: 1, jump: Math.ceil(trendWindow / 10) },
    );
  }
  return {
    trend,
    seasonal,
    remainder: y.map((v, t) => v - trend[t]! - seasonal[t]!),
  };
}

export interface MstlOptions {
  /** Window of each season's smoother. Default 11, 15, 19, … */
  readonly seasonalWindows?: readonly number[];
  readonly seasonalDegree?: 0 | 1;
  /** Rounds over the seasons. Default 2. */
  readonly rounds?: number;
}

export interface MstlParts {
  readonly seasons: readonly number[];
  readonly seasonals: readonly Float64Array[];
  readonly trend: Float64Array;
  readonly remainder: Float64Array;
  /** The series without its seasons. */
  readonly adjusted: Float64Array;
}

/**
 * Several seasons by STL in turn, each on what the others leave, shortest first (Bandara, Hyndman & Bergmeir 2021). Seasons
 * of which the series does not hold two are left out.
 */
export function mstl(
  y: Float64Array,
  seasons: readonly number[],
  options: MstlOptions = {},
): MstlParts {
  const kept = [...seasons].sort((p, q) => p - q).filter((s) => y.length >= 2 * s);
  for (const s of seasons) checkWhole(s, 2, 'season');
  checkSeries(y, 4, 'MSTL');
  const rounds = options.rounds ?? 2;
  checkWhole(rounds, 1, 'rounds');
  const seasonals = kept.map(() => new Float64Array(y.length));
  const adjusted = y.slice();
  let trend = new Float64Array(y.length).fill(mean(y));
  for (let round = 0; round < (kept.length === 1 ? 1 : rounds); round++) {
    kept.forEach((season, i) => {
      const own = seasonals[i]!;
      for (let t = 0; t < y.length; t++) adjusted[t]! += own[t]!;
      const parts = stl(adjusted, season, {
        seasonalWindow: options.seasonalWindows?.[i] ?? 11 + 4 * i,
        ...(options.seasonalDegree === undefined ? {} : { seasonalDegree: options.seasonalDegree }),
      });
      own.set(parts.seasonal);
      trend = new Float64Array(parts.trend);
      for (let t = 0; t < y.length; t++) adjusted[t]! -= own[t]!;
    });
  }
  return {
    seasons: kept,
    seasonals,
    trend,
    remainder: adjusted.map((v, t) => v - trend[t]!),
    adjusted,
  };
}
