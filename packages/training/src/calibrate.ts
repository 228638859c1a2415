import type { Calibration } from '@waggle/ranking';
import { sigmoid } from '@waggle/ranking';
import { dispersionWeights, estimateDispersion } from './fit/dispersion.js';

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

/**
 * Platt's a·logit + b (Platt 1999) by penalised maximum likelihood: slope towards 1, level towards 0, rows
 * weighted by their dispersion. Two parameters, Newton's method, O(n) per iteration.
 * Identity where the slice has too little to say.
 */
export function fitCalibration(rows: CalibrationRows): CalibrationFit {
  const { logits, successes, trials, maturity, clusters } = rows;
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
  const probability = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) probability[i] = sigmoid(logits[i]!) * maturity[i]!;
  const sample = { probability, successes, trials, clusters };
  const weights = dispersionWeights(sample, estimateDispersion(sample));
  // Centred at the mean logit, so that level and slope are nearly independent and their priors mean what they say.
  let mass = 0;
  let center = 0;
  for (let i = 0; i < nRows; i++) {
    const m = weights[i]! * trials[i]! * probability[i]!;
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
    for (let i = 0; i < nRows; i++) {
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
  if (!(a > 0.05) || !Number.isFinite(a) || !Number.isFinite(level)) {
    return { calibration: identity, reason: 'not_increasing', ...facts };
  }
  return {
    calibration: { kind: 'platt', a, b: level - tilt * center },
    reason: 'fitted',
    ...facts,
  };
}
