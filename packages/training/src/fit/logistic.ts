import { throwIfAborted } from '@waggle/core';
import { glmFit } from '@waggle/native';
import { sigmoid } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { buildDesign, type Design, toRawScale } from './design.js';
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
  /** Features that get coefficient 0. */
  readonly exclude?: readonly number[];
  /** Candidate penalties on the standardised scale: ½·λ·β², so that 1/√λ is the believed spread of a coefficient. */
  readonly ridgeGrid?: readonly number[];
  /** Believed spread of the overall level around the prior's, on the logit scale; 0.03. */
  readonly levelSd?: number;
  /** Standard errors by which later rows must prefer a weaker penalty; 2. */
  readonly rejection?: number;
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

export const RIDGE_GRID: readonly number[] = [30, 100, 300, 1_000, 3_000, 10_000, 100_000];
const FIRST_RIDGE = 100;
/** Share of the rows, the later ones, that choose the penalty. */
const VALIDATION_SHARE = 0.3;
const DISPERSION_ROUNDS = 2;
/**
 * A prior fitted to all outcomes so far knows the level to a few percent. Rows of a few days share what the
 * dispersion does not see (the weather of the week, a handful of campaigns), so they move it only together.
 */
const LEVEL_SD = 0.03;

/**
 * Logistic regression on binomial counts around the prior: logit = prior + intercept + Σ β·x, the prior's logit
 * and ln F(age) entering as offset (for rare events the logit of p·F is the logit of p plus ln F up to p),
 * rows weighted by what their shared shocks leave of them, ridge towards the prior chosen on later rows.
 * O(grid · iterations · n · p²).
 * @throws WAGGLE_TRAINING_FIT_FAILED, WAGGLE_ABORTED
 */
export async function fitLogistic(rows: FitRows, options: FitOptions): Promise<LogisticFit> {
  const { ridgeGrid = RIDGE_GRID, exclude = [], levelSd = LEVEL_SD, signal } = options;
  const { nRows, nFeatures } = rows;
  const design = buildDesign(rows.x, nRows, nFeatures, new Set(exclude));
  const offset = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) offset[i] = rows.prior[i]! + Math.log(rows.maturity[i]!);
  const all: Slice = { design, offset, rows, levelRidge: 1 / levelSd ** 2, from: 0, to: nRows };

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
  let ridge = ridgeGrid[ridgeGrid.length - 1] ?? FIRST_RIDGE;
  if (cut > 0 && cut < nRows && ridgeGrid.length > 1) {
    const earlier = { ...all, to: cut };
    const later = { ...all, from: cut };
    const losses: Float64Array[] = [];
    for (const candidate of ridgeGrid) {
      const fit = await fitSlice(earlier, weights, candidate, signal);
      const byCluster = clusterLosses(later, predictSlice(later, fit), weights);
      losses.push(byCluster);
      ridgeLosses.push({ ridge: candidate, loss: sum(byCluster) / massOf(later, weights) });
    }
    ridge = strongestUnrejected(ridgeGrid, losses, options.rejection);
  }
  const fit = await fitSlice(all, weights, ridge, signal);

  const { coefficients, intercept } = toRawScale(design, fit.coefficients, nFeatures);
  const standardErrors = new Float64Array(nFeatures).fill(Number.NaN);
  design.columns.forEach((f, c) => {
    standardErrors[f] = fit.standardErrors[c]! / design.deviations[f]!;
  });
  let believed = 0;
  let face = 0;
  for (let i = 0; i < nRows; i++) {
    believed += weights[i]! * rows.trials[i]!;
    face += rows.trials[i]!;
  }
  return {
    coefficients,
    intercept,
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
  readonly levelRidge: number;
  readonly from: number;
  readonly to: number;
}

interface SliceFit {
  /** [width], standardised, the level last. */
  readonly coefficients: Float64Array;
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
  const { width } = design;
  const l2 = new Float64Array(width).fill(ridge);
  l2[width - 1] = slice.levelRidge;
  const fit = await glmFit({
    x: design.x.subarray(from * width, to * width),
    nRows: to - from,
    nFeatures: width,
    successes: rows.successes.subarray(from, to),
    trials: rows.trials.subarray(from, to),
    weights: weights.subarray(from, to),
    offset: offset.subarray(from, to),
    l2,
    intercept: false,
    standardize: false,
    ...(signal === undefined ? {} : { signal }),
  });
  if (!fit.converged || !fit.coefficients.every(Number.isFinite)) {
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
  const { width } = design;
  const out = new Float64Array(to - from);
  for (let i = from; i < to; i++) {
    let sum = offset[i]!;
    for (let c = 0; c < width; c++) sum += fit.coefficients[c]! * design.x[i * width + c]!;
    out[i - from] = sigmoid(sum);
  }
  return out;
}

/** Weighted loss of the slice's rows, summed per cluster. */
function clusterLosses(
  slice: Slice,
  probability: Float64Array,
  weights: Float64Array,
): Float64Array {
  const { rows, from, to } = slice;
  const out = new Float64Array(rows.clusters.reduce((most, c) => Math.max(most, c), 0) + 1);
  for (let i = from; i < to; i++) {
    const p = Math.min(Math.max(probability[i - from]!, 1e-15), 1 - 1e-15);
    const s = rows.successes[i]!;
    const n = rows.trials[i]!;
    const g = rows.clusters[i]!;
    out[g] = out[g]! - weights[i]! * (s * Math.log(p) + (n - s) * Math.log1p(-p));
  }
  return out;
}

function massOf(slice: Slice, weights: Float64Array): number {
  let mass = 0;
  for (let i = slice.from; i < slice.to; i++) mass += weights[i]! * slice.rows.trials[i]!;
  return Math.max(mass, 1e-300);
}

const REJECTION = 2;

/**
 * The strongest penalty that later rows do not reject: whose loss lies within two standard errors, by cluster, of
 * the best one's. Breiman et al. (1984, §3.4.3) take one; with two the model leaves the prior only where the rows
 * say so at 95 %, which costs little where there is much data and keeps noise out where there is not.
 */
export function strongestUnrejected(
  grid: readonly number[],
  losses: readonly Float64Array[],
  rejection = REJECTION,
): number {
  const total = losses.map(sum);
  const best = total.indexOf(Math.min(...total));
  let chosen = best;
  for (let r = 0; r < grid.length; r++) {
    if (!(grid[r]! > grid[chosen]!)) continue;
    let square = 0;
    losses[r]!.forEach((loss, g) => {
      square += (loss - losses[best]![g]!) ** 2;
    });
    if (total[r]! - total[best]! <= rejection * Math.sqrt(square)) chosen = r;
  }
  return grid[chosen]!;
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const v of values) total += v;
  return total;
}

/** The first row at or after `index` that is later than the row before it. */
function timeCut(ts: Float64Array, index: number): number {
  let cut = Math.max(index, 0);
  while (cut > 0 && cut < ts.length && ts[cut] === ts[cut - 1]) cut++;
  return cut;
}
