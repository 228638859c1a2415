import { checkArray, checkFinite, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';
import {
  rowsArguments,
  SPARSE_MAX_FEATURES,
  type SparseRows,
  type SparseTargets,
  targetsArguments,
} from './sparse.js';

export interface GlmSparseInput extends SparseRows, SparseTargets {
  /** Features or hash buckets, 1 … 2²⁸. */
  readonly nFeatures: number;
  /** Lasso λ of Σ λⱼ|βⱼ|, one for all features or one each; default 0. */
  readonly l1?: number | Float64Array | undefined;
  /** Ridge λ of ½·Σ λⱼβⱼ², one for all features or one each; default 0. */
  readonly l2?: number | Float64Array | undefined;
  /** Default true; never penalised. */
  readonly intercept?: boolean | undefined;
  /** Default 50. */
  readonly maxIterations?: number | undefined;
  /** Default 1e-9, of the null deviance: half the predicted decrease at which one last step is taken. */
  readonly tolerance?: number | undefined;
  /** float64 [nFeatures (+ 1: the intercept, last)]. */
  readonly start?: Float64Array | undefined;
}

export interface GlmSparseResult {
  /** float64 [nFeatures]; exactly 0 where the lasso holds it, and for features that do not occur. */
  readonly coefficients: Float64Array;
  readonly intercept: number;
  readonly iterations: number;
  readonly converged: boolean;
  /** 2·Σ w (s·log(s/tμ) + (t−s)·log((t−s)/t(1−μ))). */
  readonly deviance: number;
  /** Σ w (s·log μ + (t−s)·log(1−μ)), without the binomial coefficient and the penalties. */
  readonly logLikelihood: number;
  readonly nNonZero: number;
  /** Largest |gradient| / λ₁ among coefficients that the lasso holds at 0: at most 1 at the optimum. */
  readonly l1Activation: number;
}

/**
 * Elastic-net logistic regression on binomial counts over sparse rows: IRLS with step halving, each quadratic model
 * solved by coordinate descent with an active set. Formula: Friedman, Hastie & Tibshirani, J. Stat. Softw. 33 (2010);
 * its λ is λ₁ divided by Σ weights · trials. Features are taken as they are: no centring, no scaling.
 *
 * @param o shapes as in {@link GlmSparseInput}; `signal` is polled between row chunks and columns
 * @returns O(iterations · sweeps · entries); the same bits at any thread count
 * @throws WAGGLE_NATIVE_NAN, _INVALID_ARGUMENT naming the first row that is wrong; _SHAPE, _DTYPE, _DETACHED, _LEASED,
 *   _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function glmFitSparse(
  o: GlmSparseInput & { readonly signal?: AbortSignal | undefined },
): Promise<GlmSparseResult> {
  checkObject('options', o);
  const { nFeatures, intercept = true, maxIterations = 50, tolerance = 1e-9 } = o;
  checkInteger('nRows', o.nRows, 1, MAX_ROWS);
  checkInteger('nFeatures', nFeatures, 1, SPARSE_MAX_FEATURES);
  checkInteger('maxIterations', maxIterations, 1, 100_000);
  checkFinite('tolerance', tolerance);
  if (tolerance <= 0) {
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'tolerance must be above 0');
  }
  const rows = rowsArguments(o);
  const targets = targetsArguments(o, o.nRows);
  const penalty = (name: string, value: number | Float64Array = 0): number | Float64Array => {
    if (typeof value === 'object') checkArray(name, value, 'Float64Array', nFeatures);
    else checkFinite(name, value);
    return value;
  };
  const l1 = penalty('l1', o.l1);
  const l2 = penalty('l2', o.l2);
  if (o.start !== undefined) {
    checkArray('start', o.start, 'Float64Array', nFeatures + (intercept ? 1 : 0));
  }
  const coefficients = new Float64Array(nFeatures);
  const report = await runJob(
    (engine) =>
      engine.glmSparse(
        ...rows,
        ...targets,
        nFeatures,
        l1,
        l2,
        intercept,
        maxIterations,
        tolerance,
        o.start,
        coefficients,
      ),
    o.signal,
  );
  return { coefficients, ...report };
}
