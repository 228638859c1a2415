import { optionNames } from '@waggle/core';
import { checkArray, checkFinite, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';

export const GLM_MAX_FEATURES = 2_048;

export interface GlmFitInput {
  /** float32 [nRows × nFeatures], row-major; borrowed until settled. */
  readonly x: Float32Array;
  readonly nRows: number;
  readonly nFeatures: number;
  /** float64 [nRows], 0 ≤ successes ≤ trials; fractions are allowed. */
  readonly successes: Float64Array;
  /** float64 [nRows], ≥ 0. */
  readonly trials: Float64Array;
  /** float64 [nRows], ≥ 0; default 1. */
  readonly weights?: Float64Array | undefined;
  /** float64 [nRows], added to the linear predictor. */
  readonly offset?: Float64Array | undefined;
  /** Ridge λ of ½·Σ λⱼβⱼ² on the standardised scale, one for all features or one each; default 0. */
  readonly l2?: number | Float64Array | undefined;
  /**
   * Lasso λ of Σ λⱼ|βⱼ| on the standardised scale, one for all features or one each; default 0. Together with `l2` the
   * elastic net. Above 0 it sets coefficients to exactly 0; see `glmPath` for a falling sequence.
   */
  readonly l1?: number | Float64Array | undefined;
  /** Default true; never penalised. */
  readonly intercept?: boolean | undefined;
  /** Default true: features are divided by their (weighted) standard deviation while fitting. */
  readonly standardize?: boolean | undefined;
  /** Default 50. */
  readonly maxIterations?: number | undefined;
  /** Default 1e-8: half the Newton decrement at which one last step is taken. */
  readonly tolerance?: number | undefined;
  /** float64 [nFeatures (+ 1: the intercept, last)], raw scale. */
  readonly start?: Float64Array | undefined;
}

export interface GlmFitResult {
  /** float64 [nFeatures], raw scale; 0 for a feature that does not vary or that the lasso leaves out. */
  readonly coefficients: Float64Array;
  readonly intercept: number;
  /**
   * float64 [nFeatures], raw scale, from the penalised Hessian; NaN for a feature that does not vary. With a lasso those
   * of the features it leaves in, as if they had been chosen beforehand.
   */
  readonly standardErrors: Float64Array;
  readonly interceptStandardError: number;
  readonly iterations: number;
  readonly converged: boolean;
  /** 2·Σ w (s·log(s/tμ) + (t−s)·log((t−s)/t(1−μ))). */
  readonly deviance: number;
  /** Σ w (s·log μ + (t−s)·log(1−μ)), without the binomial coefficient and the penalty. */
  readonly logLikelihood: number;
  /** Largest |gradient| / λ₁ among coefficients that the lasso holds at 0: at most 1 at the optimum; 0 without any. */
  readonly l1Activation: number;
}

const OPTIONS = optionNames<GlmFitInput & { readonly signal?: AbortSignal | undefined }>({
  x: true,
  nRows: true,
  nFeatures: true,
  successes: true,
  trials: true,
  weights: true,
  offset: true,
  l2: true,
  l1: true,
  intercept: true,
  standardize: true,
  maxIterations: true,
  tolerance: true,
  start: true,
  signal: true,
});

/**
 * Logistic regression on binomial counts by Newton's method (IRLS) with step halving and a Cholesky solve in
 * double; deterministic at any thread count. Formula: McCullagh & Nelder, Generalized Linear Models, §4.4. With a lasso
 * each step is solved by coordinate descent instead: Friedman, Hastie & Tibshirani, J. Stat. Softw. 33 (2010); its λ is
 * λ₁ divided by Σ weights · trials.
 *
 * @param o shapes as in {@link GlmFitInput}; `signal` is polled between row chunks
 * @returns coefficients on the raw scale; O(iterations · nRows · nFeatures²). `converged: false` when
 *   `maxIterations` ran out (separated classes without ridge do that)
 * @throws WAGGLE_NATIVE_SINGULAR when features are collinear and unpenalised; WAGGLE_NATIVE_NAN naming column
 *   and row; WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY;
 *   WAGGLE_ABORTED
 */
export async function glmFit(
  o: GlmFitInput & { readonly signal?: AbortSignal | undefined },
): Promise<GlmFitResult> {
  checkObject('options', o, OPTIONS, 'columns');
  const intercept = o.intercept ?? true;
  checkInteger('nRows', o.nRows, 1, MAX_ROWS);
  checkInteger('nFeatures', o.nFeatures, intercept ? 0 : 1, GLM_MAX_FEATURES);
  const maxIterations = o.maxIterations ?? 50;
  checkInteger('maxIterations', maxIterations, 1, 100_000);
  const tolerance = o.tolerance ?? 1e-8;
  checkFinite('tolerance', tolerance);
  if (tolerance <= 0) {
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'tolerance must be above 0');
  }
  checkArray('x', o.x, 'Float32Array', o.nRows * o.nFeatures);
  checkArray('successes', o.successes, 'Float64Array', o.nRows);
  checkArray('trials', o.trials, 'Float64Array', o.nRows);
  if (o.weights !== undefined) checkArray('weights', o.weights, 'Float64Array', o.nRows);
  if (o.offset !== undefined) checkArray('offset', o.offset, 'Float64Array', o.nRows);
  if (o.start !== undefined) {
    checkArray('start', o.start, 'Float64Array', o.nFeatures + (intercept ? 1 : 0));
  }
  const each = (name: string, penalty: number | Float64Array): Float64Array => {
    if (typeof penalty === 'object') {
      checkArray(name, penalty, 'Float64Array', o.nFeatures);
      return penalty;
    }
    checkFinite(name, penalty);
    return new Float64Array(o.nFeatures).fill(penalty);
  };
  const l2 = each('l2', o.l2 ?? 0);
  const l1 = o.l1 === undefined ? undefined : each('l1', o.l1);
  const coefficients = new Float64Array(o.nFeatures);
  const standardErrors = new Float64Array(o.nFeatures);
  const summary = new Float64Array(7);
  await runJob(
    (engine) =>
      engine.glmFit(
        o.x,
        o.nRows,
        o.nFeatures,
        o.successes,
        o.trials,
        o.weights,
        o.offset,
        l2,
        l1,
        intercept,
        o.standardize ?? true,
        maxIterations,
        tolerance,
        o.start,
        coefficients,
        standardErrors,
        summary,
      ),
    o.signal,
  );
  return {
    coefficients,
    intercept: summary[0]!,
    standardErrors,
    interceptStandardError: summary[1]!,
    iterations: summary[2]!,
    converged: summary[3] === 1,
    deviance: summary[4]!,
    logLikelihood: summary[5]!,
    l1Activation: summary[6]!,
  };
}
