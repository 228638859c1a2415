import { optionNames } from '@waggle/core';
import { nelderMead } from '../minimise.js';
import {
  checkChoice,
  checkHorizon,
  checkOptions,
  checkSeries,
  checkWhole,
  constantForecast,
  type FittedSeries,
  isConstant,
  mean,
  type SeriesModel,
} from '../series.js';
import { classicalDecomposition, isSeasonal } from './classical.js';

export interface ThetaOptions {
  /** Values per season; 1 = none. Default 1. */
  readonly season?: number;
  /**
   * `standard` θ = 2 as in Assimakopoulos & Nikolopoulos (2000), `optimised` also fits θ, `dynamic` lets the line follow the
   * series (Fiorucci et al. 2016). `auto` takes the one with the smallest squared error one step ahead. Default `auto`.
   */
  readonly variant?: 'standard' | 'optimised' | 'dynamic' | 'auto';
}

const OPTIONS = optionNames<ThetaOptions>({ season: true, variant: true });

interface State {
  readonly alpha: number;
  readonly theta: number;
  readonly level: number;
  /** Line through what was seen: intercept and slope over t = 1 … n. */
  readonly a: number;
  readonly b: number;
  /** Mean of what was seen. */
  readonly seen: number;
  readonly squares: number;
}

/** Line of y over t = 1 … n by least squares. O(n) */
function lineOf(y: Float64Array): { a: number; b: number } {
  const n = y.length;
  let ty = 0;
  for (let t = 0; t < n; t++) ty += (t + 1) * y[t]!;
  const m = mean(y);
  const b = (12 * (ty - (n * m * (n + 1)) / 2)) / (n * (n * n - 1));
  return { a: m - (b * (n + 1)) / 2, b };
}

/**
 * One pass of the state space form of Fiorucci et al. (2016), eqs. 8–12. The first three errors are left out: the line
 * through one or two points says nothing.
 */
function pass(
  y: Float64Array,
  o: { alpha: number; theta: number; level: number },
  line: { a: number; b: number } | undefined,
): State {
  const { alpha, theta } = o;
  const keep = 1 - alpha;
  let level = o.level;
  let power = 1;
  let a = line?.a ?? y[0]!;
  let b = line?.b ?? 0;
  let seen = 0;
  let squares = 0;
  for (let i = 0; i < y.length; i++) {
    const t = i + 1;
    const carried = power * keep;
    const mu = level + (1 - 1 / theta) * (power * a + ((1 - carried) / alpha) * b);
    power = carried;
    const error = y[i]! - mu;
    if (i >= 3) squares += error * error;
    level = alpha * y[i]! + keep * level;
    if (line === undefined) {
      if (t === 1) {
        seen = y[0]!;
        a = seen;
      } else {
        b = ((t - 2) * b + (6 / t) * (y[i]! - seen)) / (t + 1);
        seen = ((t - 1) * seen + y[i]!) / t;
        a = seen - ((t + 1) / 2) * b;
      }
    }
  }
  return { alpha, theta, level, a, b, seen, squares };
}

/** Means ahead: a dynamic line learns from its own forecasts, as the model says. */
function ahead(state: State, n: number, horizon: number, dynamic: boolean): Float64Array {
  const { alpha, theta } = state;
  const keep = 1 - alpha;
  let { level, a, b, seen } = state;
  let power = keep ** n;
  return Float64Array.from({ length: horizon }, (_, h) => {
    const t = n + h + 1;
    const carried = power * keep;
    const mu = level + (1 - 1 / theta) * (power * a + ((1 - carried) / alpha) * b);
    power = carried;
    level = alpha * mu + keep * level;
    if (dynamic) {
      b = ((t - 2) * b + (6 / t) * (mu - seen)) / (t + 1);
      seen = ((t - 1) * seen + mu) / t;
      a = seen - ((t + 1) / 2) * b;
    }
    return mu;
  });
}

const ALPHA_LOW = 0.1;
const ALPHA_HIGH = 0.99;
const THETA_HIGH = 1e4;

/**
 * Theta. A seasonal series is deseasonalised by classical decomposition where its autocorrelation at the season is
 * significant at 90 % (as in the M competitions). Deviations are those of simple exponential smoothing, which Theta is up to
 * drift (Hyndman & Billah 2003): σ√(1 + (h − 1)α²). O(n) a pass, some hundred passes.
 */
export function theta(options: ThetaOptions = {}): SeriesModel {
  checkOptions(options, OPTIONS);
  const season = options.season ?? 1;
  const variant = options.variant ?? 'auto';
  checkWhole(season, 1, 'season');
  checkChoice(variant, ['standard', 'optimised', 'dynamic', 'auto'], 'variant');
  const name = `Theta(${variant}${season > 1 ? `,${season}` : ''})`;
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, Math.max(4, season > 1 ? 2 * season : 4), name);
      if (isConstant(y)) return constantForecast(name, y[0]!);
      const seasonal = season > 1 && isSeasonal(y, season);
      const parts = seasonal ? classicalDecomposition(y, season) : undefined;
      const x = parts?.adjusted ?? y;
      const n = x.length;
      const line = lineOf(x);
      const fits: { state: State; dynamic: boolean; label: string }[] = [];
      const want = (v: 'standard' | 'optimised' | 'dynamic') => variant === v || variant === 'auto';
      if (want('standard')) {
        fits.push({ state: optimise(x, line, 2), dynamic: false, label: 'standard' });
      }
      if (want('optimised')) {
        fits.push({ state: optimise(x, line, undefined), dynamic: false, label: 'optimised' });
      }
      if (want('dynamic')) {
        fits.push({ state: optimise(x, undefined, undefined), dynamic: true, label: 'dynamic' });
      }
      const best = fits.reduce((a, b) => (b.state.squares < a.state.squares * (1 - 1e-9) ? b : a));
      const sigma = Math.sqrt(best.state.squares / Math.max(1, n - 3));
      return {
        name: `Theta(${best.label}${seasonal ? `,${season}` : ''})`,
        forecast(horizon) {
          checkHorizon(horizon);
          const trend = ahead(best.state, n, horizon, best.dynamic);
          const deviation = trend.map((_, h) => sigma * Math.sqrt(1 + h * best.state.alpha ** 2));
          if (parts === undefined) return { mean: trend, deviation };
          return {
            mean: trend.map((m, h) => parts.reseason(m, n + h)),
            deviation: deviation.map((d, h) => parts.rescale(d, n + h)),
          };
        },
      };
    },
  };
}

function optimise(
  x: Float64Array,
  line: { a: number; b: number } | undefined,
  fixedTheta: number | undefined,
): State {
  // Simple exponential smoothing of the theta line: coordinates are ln odds of alpha, the level in deviations, ln(θ − 1).
  let spread = 0;
  const m = mean(x);
  for (const v of x) spread += (v - m) ** 2;
  spread = Math.sqrt(spread / x.length) || 1;
  const decode = (p: Float64Array) => ({
    alpha: ALPHA_LOW + (ALPHA_HIGH - ALPHA_LOW) / (1 + Math.exp(-p[0]!)),
    level: x[0]! / 2 + spread * p[1]!,
    theta: fixedTheta ?? 1 + Math.min(THETA_HIGH, Math.exp(p[2]!)),
  });
  const start = fixedTheta === undefined ? [0, 0, 0] : [0, 0];
  const objective = (p: Float64Array) => {
    const { squares } = pass(x, decode(p), line);
    return Number.isFinite(squares) ? squares : Number.POSITIVE_INFINITY;
  };
  const { x: found } = nelderMead(
    objective,
    Float64Array.from(start),
    Float64Array.from(start, () => 0.7),
    { maxEvaluations: 400, tolerance: 1e-9 },
  );
  return pass(x, decode(found), line);
}
