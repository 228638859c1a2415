import type { Calibration } from '@waggle/ranking';
import { sigmoid } from '@waggle/ranking';
import {
  calibratedLosses,
  fitBeta,
  fitIsotonic,
  type RowNumbers,
  type WeightedRows,
} from './calibration-fits.js';
import { dispersionWeights, estimateDispersion } from './fit/dispersion.js';
import { strongestUnrejected } from './fit/logistic.js';

/** Rows later than those the model was fitted on. */
export interface CalibrationRows {
  /** [nRows] the model's raw logits. */
  readonly logits: Float64Array;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  readonly maturity: Float64Array;
  readonly clusters: Uint32Array;
}

export interface CalibrationFit {
  readonly calibration: Calibration;
  /** Why it is what it is. */
  readonly reason: 'fitted' | 'too_few_successes' | 'too_few_publications' | 'not_increasing';
  readonly nSuccesses: number;
  readonly nClusters: number;
}

/** Below these a slice says less about calibration than the fit already did. */
export const MIN_CALIBRATION_SUCCESSES = 50;
export const MIN_CALIBRATION_CLUSTERS = 20;
/**
 * Believed spread of a level shift and of (slope − 1) before looking. Seasons move levels by 15 % over months (domain
 * §6, drift), some days move them less, and a slope far from 1 on rows a few days later is more likely noise
 * than truth.
 */
const LEVEL_SD = 0.05;
const SLOPE_SD = 0.05;

/** Fewer calibration rows than this are not enough for isotonic regression, which follows noise (domain §3). */
export const MIN_ISOTONIC_ROWS = 1_000;
const FOLDS = 5;

/**
 * Calibration on rows later than the model: Platt's line, and a curve only where it is worth it. Every kind is fitted with one
 * fifth of the publications left out at a time and judged on those; the simplest kind is taken whose loss lies within two
 * standard errors, by publication, of the best one's (see `strongestUnrejected`). Platt's line is always in the running, beta
 * too, isotonic from 1,000 rows on. Identity where the slice has too little to say. O(folds · n log n).
 * @param o `onlyIfNeeded` puts identity in the running as the simplest kind: for a model that is calibrated by its making, which
 *   a line through few rows would only shake
 */
export function fitCalibration(
  rows: CalibrationRows,
  o: { readonly onlyIfNeeded?: boolean } = {},
): CalibrationFit {
  const { logits, successes, trials, clusters } = rows;
  const nRows = logits.length;
  let nSuccesses = 0;
  const seen = new Set<number>();
  for (let i = 0; i < nRows; i++) {
    nSuccesses += successes[i]!;
    if (trials[i]! > 0) seen.add(clusters[i]!);
  }
  const facts = { nSuccesses, nClusters: seen.size };
  const identity = { kind: 'identity' } as const;
  if (nSuccesses < MIN_CALIBRATION_SUCCESSES) {
    return { calibration: identity, reason: 'too_few_successes', ...facts };
  }
  if (seen.size < MIN_CALIBRATION_CLUSTERS) {
    return { calibration: identity, reason: 'too_few_publications', ...facts };
  }
  const weighted = { ...rows, weights: calibrationWeights(rows) };
  const everyone = Uint32Array.from({ length: nRows }, (_, i) => i);
  const platt = fitPlatt(weighted, everyone);
  if (platt === undefined) return { calibration: identity, reason: 'not_increasing', ...facts };
  const kinds: readonly Kind[] = o.onlyIfNeeded === true ? ['identity', ...KINDS] : KINDS;
  const kind = chooseKind(weighted, [...seen], kinds);
  const curve = kind === 'platt' ? undefined : FITS[kind](weighted, everyone);
  return { calibration: curve ?? platt, reason: 'fitted', ...facts };
}

/** What the shared luck of sends and publications leaves of each row, at the model's own predictions. */
export function calibrationWeights(rows: CalibrationRows): Float64Array {
  const { logits, successes, trials, maturity, clusters } = rows;
  const probability = Float64Array.from(logits, (z, i) => sigmoid(z) * maturity[i]!);
  const sample = { probability, successes, trials, clusters };
  return dispersionWeights(sample, estimateDispersion(sample));
}

type Kind = 'identity' | 'platt' | 'beta' | 'isotonic';
/** Simplest first. */
const KINDS: readonly Kind[] = ['platt', 'beta', 'isotonic'];

const FITS: Readonly<
  Record<Kind, (rows: WeightedRows, numbers: RowNumbers) => Calibration | undefined>
> = {
  identity: () => ({ kind: 'identity' }),
  platt: (rows, numbers) => fitPlatt(rows, numbers),
  beta: (rows, numbers) => fitBeta(rows, { level: LEVEL_SD, slope: SLOPE_SD }, numbers),
  isotonic: (rows, numbers) => fitIsotonic(rows, numbers),
};

function chooseKind(
  rows: WeightedRows & { readonly clusters: Uint32Array },
  clusters: readonly number[],
  kinds: readonly Kind[],
): Kind {
  const nRows = rows.logits.length;
  const fold = new Map([...clusters].sort((a, b) => a - b).map((c, i) => [c, i % FOLDS]));
  const nClusters = clusters.reduce((most, c) => Math.max(most, c), 0) + 1;
  const losses: Float64Array[] = [];
  const tried: Kind[] = [];
  for (const kind of kinds) {
    if (kind === 'isotonic' && nRows < MIN_ISOTONIC_ROWS) continue;
    const out = new Float64Array(nClusters);
    let failed = false;
    for (let f = 0; f < FOLDS && !failed; f++) {
      const inside: number[] = [];
      const outside: number[] = [];
      for (let i = 0; i < nRows; i++) {
        const own = fold.get(rows.clusters[i]!);
        if (own !== undefined) (own === f ? outside : inside).push(i);
      }
      const fitted = FITS[kind](rows, inside);
      if (fitted === undefined) failed = true;
      else calibratedLosses(rows, fitted, outside, out);
    }
    if (failed) continue;
    tried.push(kind);
    losses.push(out);
  }
  if (tried.length === 0) return 'platt';
  // Rank by simplicity: the greater the number, the stronger the belief that is kept.
  const strength = tried.map((_, i) => tried.length - i);
  return tried[strength.indexOf(strongestUnrejected(strength, losses))]!;
}

/**
 * Platt's a·logit + b (Platt 1999) by penalised maximum likelihood: slope towards 1, level towards 0, rows
 * weighted by their dispersion. Two parameters, Newton's method, O(n) per iteration.
 * @returns undefined where the best line would turn the order around
 */
export function fitPlatt(
  rows: WeightedRows,
  numbers: RowNumbers,
): (Calibration & { kind: 'platt' }) | undefined {
  const { logits, successes, trials, maturity, weights } = rows;
  // Centred at the mean logit, so that level and slope are nearly independent and their priors mean what they say.
  let mass = 0;
  let center = 0;
  for (const i of numbers) {
    const m = weights[i]! * trials[i]! * (sigmoid(logits[i]!) * maturity[i]!);
    mass += m;
    center += m * logits[i]!;
  }
  center /= mass;
  let level = 0;
  let tilt = 0; // slope − 1
  for (let iteration = 0; iteration < 50; iteration++) {
    let g0 = -level / LEVEL_SD ** 2;
    let g1 = -tilt / SLOPE_SD ** 2;
    let h00 = 1 / LEVEL_SD ** 2;
    let h01 = 0;
    let h11 = 1 / SLOPE_SD ** 2;
    for (const i of numbers) {
      const z = logits[i]! - center;
      const p = sigmoid(logits[i]! + level + tilt * z + Math.log(maturity[i]!));
      const residual = weights[i]! * (successes[i]! - trials[i]! * p);
      const information = weights[i]! * trials[i]! * p * (1 - p);
      g0 += residual;
      g1 += residual * z;
      h00 += information;
      h01 += information * z;
      h11 += information * z * z;
    }
    const determinant = h00 * h11 - h01 * h01;
    const step0 = (h11 * g0 - h01 * g1) / determinant;
    const step1 = (h00 * g1 - h01 * g0) / determinant;
    // The likelihood is concave; limiting a step to 1 is enough to keep Newton from overshooting.
    const scale = Math.min(1, 1 / Math.max(Math.abs(step0), Math.abs(step1), 1e-300));
    level += scale * step0;
    tilt += scale * step1;
    if (Math.abs(step0) + Math.abs(step1) < 1e-10) break;
  }
  const a = 1 + tilt;
  if (!(a > 0.05) || !Number.isFinite(a) || !Number.isFinite(level)) return undefined;
  return { kind: 'platt', a, b: level - tilt * center };
}
