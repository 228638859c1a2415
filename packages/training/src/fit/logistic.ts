import { throwIfAborted } from '@waggle/core';
import { glmFit } from '@waggle/native';
import { sigmoid } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { buildDesign, type Design } from './design.js';
import { type Dispersion, dispersionWeights, estimateDispersion } from './dispersion.js';

/** Rows in time order. */
export interface FitRows {
  /** float32 [nRows × nFeatures], row-major, finite. */
  readonly x: Float32Array;
  readonly nRows: number;
  readonly nFeatures: number;
  readonly decisionTsMs: Float64Array;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  readonly maturity: Float64Array;
  readonly clusters: Uint32Array;
  /** [nRows] logits around which the fit is made: coefficients are what the ridge lets through beyond them. */
  readonly prior: Float64Array;
}

export interface FitOptions {
  /** Candidate penalties on the standardised scale: ½·λ·β², so that 1/√λ is the believed spread of a coefficient. */
  readonly ridgeGrid?: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

export interface LogisticFit {
  /** On raw feature scale, beyond the prior. */
  readonly coefficients: Float64Array;
  readonly intercept: number;
  readonly standardErrors: Float64Array;
  readonly ridge: number;
  /** Validation loss per candidate penalty, nats per effective trial. */
  readonly ridgeLosses: readonly { readonly ridge: number; readonly loss: number }[];
  readonly dispersion: Dispersion;
  readonly iterations: number;
  readonly constantFeatures: readonly number[];
  readonly means: Float64Array;
  /** Σ weight·trials over Σ trials: how much of the data's face value was believed. */
  readonly effectiveShare: number;
}

export const RIDGE_GRID: readonly number[] = [1, 10, 30, 100, 300, 1_000, 3_000, 10_000, 100_000];
const FIRST_RIDGE = 100;
/** Share of the rows, the later ones, that choose the penalty. */
const VALIDATION_SHARE = 0.3;
const DISPERSION_ROUNDS = 2;

/**
 * Logistic regression on binomial counts around the prior: logit = prior + intercept + Σ β·x, the prior's logit
 * and ln F(age) entering as offset (for rare events the logit of p·F is the logit of p plus ln F up to p),
 * rows weighted by what their shared shocks leave of them, ridge towards the prior chosen on later rows.
 * O(grid · iterations · n · p²).
 * @throws WAGGLE_TRAINING_FIT_FAILED, WAGGLE_ABORTED
 */
export async function fitLogistic(rows: FitRows, options: FitOptions): Promise<LogisticFit> {
  const { ridgeGrid = RIDGE_GRID, signal } = options;
  const { nRows, nFeatures } = rows;
  const design = buildDesign(rows.x, nRows, nFeatures);
  const offset = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) offset[i] = rows.prior[i]! + Math.log(rows.maturity[i]!);
  const all: Slice = { design, offset, rows, from: 0, to: nRows };

  let weights = new Float64Array(nRows).fill(1);
  let dispersion: Dispersion = { rowVariance: 0, clusterVariance: 0 };
  for (let round = 0; round < DISPERSION_ROUNDS; round++) {
    const fit = await fitSlice(all, weights, FIRST_RIDGE, signal);
    const probability = predictSlice(all, fit);
    const sample = { ...rows, probability };
    dispersion = estimateDispersion(sample);
    weights = Float64Array.from(dispersionWeights(sample, dispersion));
  }

  const cut = timeCut(rows.decisionTsMs, Math.floor(nRows * (1 - VALIDATION_SHARE)));
  const ridgeLosses: { ridge: number; loss: number }[] = [];
  if (cut > 0 && cut < nRows && ridgeGrid.length > 1) {
    const earlier = { ...all, to: cut };
    const later = { ...all, from: cut };
    for (const ridge of ridgeGrid) {
      const fit = await fitSlice(earlier, weights, ridge, signal);
      ridgeLosses.push({ ridge, loss: weightedLoss(later, predictSlice(later, fit), weights) });
    }
  }
  const ridge = ridgeLosses.reduce(
    (best, next) => (next.loss < best.loss ? next : best),
    ridgeLosses[0] ?? { ridge: ridgeGrid[0] ?? FIRST_RIDGE, loss: Number.POSITIVE_INFINITY },
  ).ridge;
  const fit = await fitSlice(all, weights, ridge, signal);

  const coefficients = new Float64Array(nFeatures);
  const standardErrors = new Float64Array(nFeatures).fill(Number.NaN);
  design.columns.forEach((f, c) => {
    coefficients[f] = fit.coefficients[c]!;
    standardErrors[f] = fit.standardErrors[c]!;
  });
  let believed = 0;
  let face = 0;
  for (let i = 0; i < nRows; i++) {
    believed += weights[i]! * rows.trials[i]!;
    face += rows.trials[i]!;
  }
  return {
    coefficients,
    intercept: fit.intercept,
    standardErrors,
    ridge,
    ridgeLosses,
    dispersion,
    iterations: fit.iterations,
    constantFeatures: design.constant,
    means: design.means,
    effectiveShare: face > 0 ? believed / face : 0,
  };
}

interface Slice {
  readonly design: Design;
  readonly offset: Float64Array;
  readonly rows: FitRows;
  readonly from: number;
  readonly to: number;
}

interface SliceFit {
  readonly coefficients: Float64Array;
  readonly intercept: number;
  readonly standardErrors: Float64Array;
  readonly iterations: number;
}

async function fitSlice(
  slice: Slice,
  weights: Float64Array,
  ridge: number,
  signal: AbortSignal | undefined,
): Promise<SliceFit> {
  throwIfAborted(signal);
  const { design, offset, rows, from, to } = slice;
  const width = design.columns.length;
  const fit = await glmFit({
    x: design.x.subarray(from * width, to * width),
    nRows: to - from,
    nFeatures: width,
    successes: rows.successes.subarray(from, to),
    trials: rows.trials.subarray(from, to),
    weights: weights.subarray(from, to),
    offset: offset.subarray(from, to),
    l2: ridge,
    intercept: true,
    standardize: true,
    ...(signal === undefined ? {} : { signal }),
  });
  if (
    !fit.converged ||
    !Number.isFinite(fit.intercept) ||
    !fit.coefficients.every(Number.isFinite)
  ) {
    throw trainingError(
      'WAGGLE_TRAINING_FIT_FAILED',
      `the fit of ${to - from} rows × ${width} features at ridge ${ridge} did not converge in ${fit.iterations} iterations`,
      { details: { iterations: fit.iterations, ridge } },
    );
  }
  return fit;
}

/** Probabilities of visible successes of the slice's rows. */
function predictSlice(slice: Slice, fit: SliceFit): Float64Array {
  const { design, offset, from, to } = slice;
  const width = design.columns.length;
  const out = new Float64Array(to - from);
  for (let i = from; i < to; i++) {
    let sum = offset[i]! + fit.intercept;
    for (let c = 0; c < width; c++) sum += fit.coefficients[c]! * design.x[i * width + c]!;
    out[i - from] = sigmoid(sum);
  }
  return out;
}

function weightedLoss(slice: Slice, probability: Float64Array, weights: Float64Array): number {
  const { rows, from, to } = slice;
  let loss = 0;
  let mass = 0;
  for (let i = from; i < to; i++) {
    const p = Math.min(Math.max(probability[i - from]!, 1e-15), 1 - 1e-15);
    const s = rows.successes[i]!;
    const n = rows.trials[i]!;
    loss -= weights[i]! * (s * Math.log(p) + (n - s) * Math.log1p(-p));
    mass += weights[i]! * n;
  }
  return mass > 0 ? loss / mass : Number.POSITIVE_INFINITY;
}

/** The first row at or after `index` that is later than the row before it. */
function timeCut(ts: Float64Array, index: number): number {
  let cut = Math.max(index, 0);
  while (cut > 0 && cut < ts.length && ts[cut] === ts[cut - 1]) cut++;
  return cut;
}
