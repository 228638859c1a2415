import { optionNames, Rng } from '@waggle/core';
import { descendGradient, nelderMead } from '../minimise.js';
import {
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
import { classicalDecomposition } from './classical.js';

/** One of the forms of exponential smoothing: error, trend, season; A additive, M multiplicative, Ad damped, N none. */
export interface EtsForm {
  readonly error: 'A' | 'M';
  readonly trend: 'N' | 'A' | 'Ad';
  readonly season: 'N' | 'A' | 'M';
}

export interface EtsOptions {
  /** Values per season; 1 = none. Default 1. */
  readonly season?: number;
  /** The one form to fit. Default: every admissible form, the one with the smallest AICc is taken. */
  readonly form?: EtsForm;
  /** Paths by which forms without closed variance are simulated. Default 1,000. */
  readonly nPaths?: number;
  /** Seed of those paths. Default 1. */
  readonly seed?: number;
}

const OPTIONS = optionNames<EtsOptions>({ season: true, form: true, nPaths: true, seed: true });

export interface FittedEts extends FittedSeries {
  readonly form: EtsForm;
  readonly alpha: number;
  readonly beta: number;
  readonly gamma: number;
  readonly phi: number;
  /** −2 ln L without constants, as Hyndman et al. (2002) give it. */
  readonly minusTwoLogLikelihood: number;
  readonly aicc: number;
  /**
   * Sample paths of the series ahead, float64 [nPaths × horizon], row-major: counter-based draws, so a path depends on seed
   * and its number alone. O(nPaths · horizon)
   */
  paths(horizon: number, nPaths: number, seed: number): Float64Array;
}

interface Parameters {
  alpha: number;
  beta: number;
  gamma: number;
  phi: number;
  level: number;
  slope: number;
  /** [season] seasonal states, oldest first: the one of time 0 stands at 0. */
  seasonal: Float64Array;
}

interface Passed {
  readonly level: number;
  readonly slope: number;
  readonly seasonal: Float64Array;
  readonly squares: number;
  readonly logMeans: number;
}

/**
 * Error-correction form of every model (Hyndman, Koehler, Ord & Snyder 2008, tables 2.2 and 2.3): states move alike under
 * additive and multiplicative errors, only the likelihood differs. `seasonal` is worked on. O(n)
 */
function pass(y: Float64Array, form: EtsForm, p: Parameters, seasonal: Float64Array): Passed {
  const m = seasonal.length;
  const { alpha, beta, gamma } = p;
  const trended = form.trend !== 'N';
  const phi = form.trend === 'Ad' ? p.phi : 1;
  const additive = form.season === 'A';
  const multiplicative = form.season === 'M';
  const relative = form.error === 'M';
  let { level, slope } = p;
  seasonal.set(p.seasonal);
  let squares = 0;
  let logMeans = 0;
  let at = 0;
  for (let t = 0; t < y.length; t++) {
    const carried = trended ? phi * slope : 0;
    const base = level + carried;
    const s = m > 0 ? seasonal[at]! : 0;
    const mu = additive ? base + s : multiplicative ? base * s : base;
    const error = y[t]! - mu;
    if (relative) {
      // A mean at or below zero has no multiplicative error.
      if (!(mu > 0)) return { level, slope, seasonal, squares: Number.POSITIVE_INFINITY, logMeans };
      squares += (error / mu) ** 2;
      logMeans += Math.log(mu);
    } else {
      squares += error * error;
    }
    const shift = additive ? error : multiplicative ? y[t]! / s - base : error;
    level = base + alpha * shift;
    if (trended) slope = carried + beta * shift;
    if (m > 0) {
      seasonal[at] = additive ? s + gamma * error : s + gamma * (y[t]! / base - s);
      if (++at === m) at = 0;
    }
  }
  return { level, slope, seasonal, squares, logMeans };
}

const logistic = (x: number): number => 1 / (1 + Math.exp(-x));
const SMALL = 1e-4;
const PHI_LOW = 0.8;
const PHI_HIGH = 0.98;

/** How many smoothing coordinates a form has: alpha, then beta, gamma, phi where it has them. */
const smoothingCount = (form: EtsForm): number =>
  1 + (form.trend === 'N' ? 0 : 1) + (form.season === 'N' ? 0 : 1) + (form.trend === 'Ad' ? 1 : 0);

/**
 * Coordinates ↔ parameters. Smoothing parameters stay inside the usual region 0 < β < α < 1, 0 < γ < 1 − α by logistic maps;
 * states are counted in deviations of the series. The last seasonal state follows from the others (sum 0 or mean 1).
 */
class Coordinates {
  readonly form: EtsForm;
  readonly size: number;
  readonly nSmoothing: number;
  readonly #season: number;
  readonly #start: Parameters;
  readonly #unit: number;

  constructor(form: EtsForm, season: number, start: Parameters, unit: number) {
    this.form = form;
    this.#season = form.season === 'N' ? 0 : season;
    this.#start = start;
    this.#unit = unit;
    this.nSmoothing = smoothingCount(form);
    this.size = this.nSmoothing + 1 + (form.trend === 'N' ? 0 : 1) + Math.max(0, this.#season - 1);
  }

  decode(x: Float64Array, into: Parameters): Parameters {
    const { form } = this;
    let i = 0;
    into.alpha = SMALL + (1 - 2 * SMALL) * logistic(x[i++]!);
    into.beta = form.trend === 'N' ? 0 : into.alpha * (SMALL + (1 - SMALL) * logistic(x[i++]!));
    into.gamma =
      form.season === 'N' ? 0 : (1 - into.alpha) * (SMALL + (1 - SMALL) * logistic(x[i++]!));
    into.phi = form.trend === 'Ad' ? PHI_LOW + (PHI_HIGH - PHI_LOW) * logistic(x[i++]!) : 1;
    into.level = this.#start.level + this.#unit * x[i++]!;
    into.slope = form.trend === 'N' ? 0 : this.#start.slope + 0.1 * this.#unit * x[i++]!;
    const m = this.#season;
    if (m > 0) {
      const scale = form.season === 'A' ? this.#unit : 1;
      let sum = 0;
      for (let k = 0; k < m - 1; k++) {
        const value = this.#start.seasonal[k]! + scale * x[i++]!;
        into.seasonal[k] = value;
        sum += value;
      }
      into.seasonal[m - 1] = (form.season === 'A' ? 0 : m) - sum;
    }
    return into;
  }
}

/**
 * First states: seasonal indices by classical decomposition of the first cycles, level and slope by least squares through the
 * first adjusted values (Hyndman et al. 2002, §2.6.1).
 */
function firstStates(y: Float64Array, form: EtsForm, season: number): Parameters | undefined {
  const empty = { alpha: 0.3, beta: 0.03, gamma: 0.1, phi: 0.95 };
  let adjusted = y;
  let seasonal = new Float64Array(0);
  if (form.season !== 'N') {
    const head = y.subarray(
      0,
      Math.min(y.length, Math.max(2 * season, Math.min(10 * season, 3 * season + 10))),
    );
    const parts = classicalDecomposition(head, season, form.season === 'A' ? 'additive' : 'auto');
    if (form.season === 'M' && !parts.multiplicative) return undefined;
    seasonal = parts.indices.slice();
    adjusted = head.map((v, t) =>
      form.season === 'A' ? v - seasonal[t % season]! : v / seasonal[t % season]!,
    );
  }
  const n = Math.min(adjusted.length, Math.max(10, 2 * season));
  const m = mean(adjusted.subarray(0, n));
  let ty = 0;
  let tt = 0;
  for (let t = 0; t < n; t++) {
    const centred = t - (n - 1) / 2;
    ty += centred * adjusted[t]!;
    tt += centred * centred;
  }
  const slope = form.trend === 'N' || tt === 0 ? 0 : ty / tt;
  return { ...empty, level: form.trend === 'N' ? m : m - slope * ((n + 1) / 2), slope, seasonal };
}

/**
 * Fits one form by maximum likelihood: Nelder–Mead over smoothing parameters, level and slope from two starts, then all
 * coordinates together, seasonal states included, by quasi-Newton steps. Some thousand passes of O(n).
 */
function fitForm(y: Float64Array, form: EtsForm, season: number): FittedForm | undefined {
  const start = firstStates(y, form, season);
  if (start === undefined) return undefined;
  const m = mean(y);
  let unit = 0;
  for (const v of y) unit += (v - m) ** 2;
  unit = Math.sqrt(unit / y.length);
  const coordinates = new Coordinates(form, season, start, unit);
  const parameters: Parameters = { ...start, seasonal: start.seasonal.slice() };
  const work = new Float64Array(start.seasonal.length);
  const n = y.length;
  // Errors below rounding are no errors: they must not be chased to minus infinity.
  const floor = form.error === 'A' ? n * (unit * 1e-10) ** 2 : n * 1e-20;
  const likelihood = (x: Float64Array): number => {
    const { squares, logMeans } = pass(y, form, coordinates.decode(x, parameters), work);
    const value = n * Math.log(squares + floor) + 2 * logMeans;
    return Number.isFinite(value) ? value : Number.POSITIVE_INFINITY;
  };
  const nFirst = coordinates.nSmoothing + 1 + (form.trend === 'N' ? 0 : 1);
  const full = new Float64Array(coordinates.size);
  const head = (x: Float64Array): number => {
    full.fill(0);
    full.set(x);
    return likelihood(full);
  };
  let best: { x: Float64Array; value: number } | undefined;
  for (const logit of [-1.5, 1]) {
    const x = new Float64Array(nFirst);
    x[0] = logit;
    for (let i = 1; i < coordinates.nSmoothing; i++) x[i] = i === 1 && form.trend !== 'N' ? -3 : -2;
    const found = nelderMead(head, x, new Float64Array(nFirst).fill(0.6), {
      maxEvaluations: 60 * nFirst,
      tolerance: 1e-7,
    });
    if (best === undefined || found.value < best.value) best = found;
  }
  if (best === undefined || !Number.isFinite(best.value)) return undefined;
  full.fill(0);
  full.set(best.x);
  const polished = descendGradient(likelihood, full.slice(), { maxSteps: 60, tolerance: 1e-8 });
  coordinates.decode(polished.x, parameters);
  const passed = pass(y, form, parameters, work);
  // The variance counts as a parameter too.
  const k = coordinates.size + 1;
  const aic = polished.value + 2 * k;
  return {
    form,
    parameters: { ...parameters, seasonal: parameters.seasonal.slice() },
    level: passed.level,
    slope: passed.slope,
    seasonal: passed.seasonal.slice(),
    at: season > 0 && start.seasonal.length > 0 ? n % start.seasonal.length : 0,
    variance: passed.squares / Math.max(1, n - coordinates.size),
    minusTwoLogLikelihood: polished.value,
    aicc: n > k + 1 ? aic + (2 * k * (k + 1)) / (n - k - 1) : Number.POSITIVE_INFINITY,
  };
}

interface FittedForm {
  readonly form: EtsForm;
  readonly parameters: Parameters;
  readonly level: number;
  readonly slope: number;
  readonly seasonal: Float64Array;
  /** Seasonal state of the next value. */
  readonly at: number;
  readonly variance: number;
  readonly minusTwoLogLikelihood: number;
  readonly aicc: number;
}

export const etsName = (f: EtsForm): string => `ETS(${f.error},${f.trend},${f.season})`;

/**
 * Admissible forms: those of Hyndman et al. (2008) but for multiplicative trends and for additive errors under multiplicative
 * seasons, whose variances explode. Multiplicative ones need a series above zero.
 */
function candidateForms(y: Float64Array, season: number): EtsForm[] {
  let positive = true;
  for (const v of y) if (v <= 0) positive = false;
  const seasonal = season > 1 && y.length >= 2 * season + 5;
  const forms: EtsForm[] = [];
  for (const error of ['A', 'M'] as const) {
    for (const trend of ['N', 'A', 'Ad'] as const) {
      for (const s of ['N', 'A', 'M'] as const) {
        if (error === 'M' && !positive) continue;
        if (s !== 'N' && !seasonal) continue;
        if (s === 'M' && (error === 'A' || !positive)) continue;
        forms.push({ error, trend, season: s });
      }
    }
  }
  return forms;
}

/**
 * Exponential smoothing in state space form, chosen by AICc and fitted by maximum likelihood (Hyndman, Koehler, Snyder &
 * Grose 2002; Hyndman et al. 2008).
 */
export function ets(options: EtsOptions = {}): Omit<SeriesModel, 'fit'> & {
  fit(y: Float64Array): FittedEts;
} {
  checkOptions(options, OPTIONS);
  const season = options.season ?? 1;
  checkWhole(season, 1, 'season');
  const nPaths = options.nPaths ?? 1000;
  checkWhole(nPaths, 2, 'nPaths');
  const name = options.form === undefined ? `AutoETS(${season})` : etsName(options.form);
  return {
    name,
    fit(y) {
      const needsSeason = options.form !== undefined && options.form.season !== 'N';
      checkSeries(y, needsSeason ? 2 * season : 4, name);
      if (isConstant(y)) return constantEts(y[0]!);
      const forms = options.form === undefined ? candidateForms(y, season) : [options.form];
      let best: FittedForm | undefined;
      for (const form of forms) {
        const fitted = fitForm(y, form, season);
        if (fitted !== undefined && (best === undefined || fitted.aicc < best.aicc)) best = fitted;
      }
      if (best === undefined) {
        // What multiplicative forms cannot take, additive ones can.
        best = fitForm(y, { error: 'A', trend: 'N', season: 'N' }, season)!;
      }
      return fittedOf(best, nPaths, options.seed ?? 1);
    },
  };
}

function constantEts(value: number): FittedEts {
  const form = { error: 'A', trend: 'N', season: 'N' } as const;
  return {
    ...constantForecast(etsName(form), value),
    form,
    alpha: 1,
    beta: 0,
    gamma: 0,
    phi: 1,
    minusTwoLogLikelihood: Number.NEGATIVE_INFINITY,
    aicc: Number.NEGATIVE_INFINITY,
    paths: (horizon, nPaths) => new Float64Array(horizon * nPaths).fill(value),
  };
}

function fittedOf(fitted: FittedForm, nPaths: number, seed: number): FittedEts {
  const { form, parameters } = fitted;
  const sigma = Math.sqrt(fitted.variance);
  const phi = form.trend === 'Ad' ? parameters.phi : 1;
  const m = fitted.seasonal.length;

  const paths = (horizon: number, count: number, pathSeed: number): Float64Array => {
    checkHorizon(horizon);
    checkWhole(count, 1, 'nPaths');
    const out = new Float64Array(count * horizon);
    const seasonal = new Float64Array(m);
    for (let path = 0; path < count; path++) {
      const rng = new Rng(pathSeed, path);
      let { level, slope } = fitted;
      let at = fitted.at;
      seasonal.set(fitted.seasonal);
      for (let h = 0; h < horizon; h++) {
        const carried = form.trend === 'N' ? 0 : phi * slope;
        const base = level + carried;
        const s = m > 0 ? seasonal[at]! : 0;
        const mu = form.season === 'A' ? base + s : form.season === 'M' ? base * s : base;
        // A relative error below −1 would turn a positive series over.
        const shock = rng.normal() * sigma;
        const error = form.error === 'A' ? shock : mu * Math.max(-0.999, shock);
        const value = mu + error;
        out[path * horizon + h] = value;
        const shift = form.season === 'M' ? value / s - base : error;
        level = base + parameters.alpha * shift;
        if (form.trend !== 'N') slope = carried + parameters.beta * shift;
        if (m > 0) {
          seasonal[at] =
            form.season === 'A'
              ? s + parameters.gamma * error
              : s + parameters.gamma * (value / base - s);
          if (++at === m) at = 0;
        }
      }
    }
    return out;
  };

  return {
    name: etsName(form),
    form,
    alpha: parameters.alpha,
    beta: parameters.beta,
    gamma: parameters.gamma,
    phi: parameters.phi,
    minusTwoLogLikelihood: fitted.minusTwoLogLikelihood,
    aicc: fitted.aicc,
    paths,
    forecast(horizon) {
      checkHorizon(horizon);
      const means = new Float64Array(horizon);
      let damping = 0;
      let power = 1;
      for (let h = 0; h < horizon; h++) {
        power *= phi;
        damping += power;
        const base = fitted.level + (form.trend === 'N' ? 0 : damping * fitted.slope);
        const s = m > 0 ? fitted.seasonal[(fitted.at + h) % m]! : 0;
        means[h] = form.season === 'A' ? base + s : form.season === 'M' ? base * s : base;
      }
      const deviation = new Float64Array(horizon);
      if (form.error === 'A' && form.season !== 'M') {
        // Hyndman et al. (2008), table 6.1: σ²(1 + Σ c_j²).
        let sum = 1;
        let slopeWeight = 0;
        let slopePower = 1;
        for (let h = 0; h < horizon; h++) {
          if (h > 0) {
            slopePower *= phi;
            slopeWeight += slopePower;
            const c =
              parameters.alpha +
              parameters.beta * slopeWeight +
              (m > 0 && h % m === 0 ? parameters.gamma : 0);
            sum += c * c;
          }
          deviation[h] = sigma * Math.sqrt(sum);
        }
      } else {
        const drawn = paths(horizon, nPaths, seed);
        for (let h = 0; h < horizon; h++) {
          let squares = 0;
          for (let path = 0; path < nPaths; path++) {
            squares += (drawn[path * horizon + h]! - means[h]!) ** 2;
          }
          deviation[h] = Math.sqrt(squares / nPaths);
        }
      }
      return { mean: means, deviation };
    },
  };
}
