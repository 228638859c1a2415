import { checkFinite, checkInteger, checkObject } from './arrays.js';
import { nativeError } from './errors.js';
import { type GlmFitInput, type GlmFitResult, glmFit } from './glm-fit.js';
import { type GlmSparseInput, type GlmSparseResult, glmFitSparse } from './glm-sparse.js';

export interface GlmPathOptions {
  /** Factors on `l1` and `l2`, strongest first; default `nLambdas` of them from where every lasso coefficient is 0. */
  readonly lambdas?: readonly number[] | undefined;
  /** Default 50. */
  readonly nLambdas?: number | undefined;
  /** Of the first factor to the last; default 1e-3. */
  readonly minRatio?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type GlmPath<Result> = readonly (Result & { readonly lambda: number })[];

type Penalty = number | Float64Array | undefined;

interface Fit {
  readonly coefficients: Float64Array;
  readonly intercept: number;
  readonly l1Activation: number;
}

/** So strong that no gradient within the range of double moves a coefficient. */
const PROHIBITIVE = 1e100;

const scaled = (penalty: Penalty, by: number): Penalty =>
  typeof penalty === 'object' ? penalty.map((v) => v * by) : (penalty ?? 0) * by;

/**
 * Elastic-net fits along a falling penalty, each started from the one before (Friedman, Hastie & Tibshirani 2010, §2.5):
 * `l1` and `l2` of the input are multiplied by each λ. The first default λ is the smallest at which every coefficient
 * with a lasso is 0 (ridge of features without one set aside).
 *
 * @returns one fit per λ, in order; the cost of a path is little more than that of its last fit
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT when no `l1` is above 0 or `lambdas` rise; else as `glmFit`
 */
export function glmPath(
  o: Omit<GlmFitInput, 'start'>,
  options: GlmPathOptions = {},
): Promise<GlmPath<GlmFitResult>> {
  return path(o, options, (penalties, start) =>
    glmFit({ ...o, ...penalties, start, signal: options.signal }),
  );
}

/** {@link glmPath} over sparse rows. */
export function glmPathSparse(
  o: Omit<GlmSparseInput, 'start'>,
  options: GlmPathOptions = {},
): Promise<GlmPath<GlmSparseResult>> {
  return path(o, options, (penalties, start) =>
    glmFitSparse({ ...o, ...penalties, start, signal: options.signal }),
  );
}

async function path<Result extends Fit>(
  o: { readonly l1?: Penalty; readonly l2?: Penalty; readonly intercept?: boolean | undefined },
  options: GlmPathOptions,
  fit: (
    penalties: { l1: Penalty; l2: Penalty },
    start: Float64Array | undefined,
  ) => Promise<Result>,
): Promise<GlmPath<Result>> {
  checkObject('input', o);
  checkObject('options', options);
  if (!(typeof o.l1 === 'object' ? o.l1.some((v) => v > 0) : (o.l1 ?? 0) > 0)) {
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'a path needs an l1 above 0');
  }
  const fits: (Result & { readonly lambda: number })[] = [];
  let start: Float64Array | undefined;
  for (const lambda of options.lambdas ?? (await defaultLambdas(o, options, fit))) {
    checkFinite('lambda', lambda);
    if (lambda < 0 || lambda > (fits.at(-1)?.lambda ?? Number.MAX_VALUE)) {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        'lambdas must not be negative and must not rise',
      );
    }
    const next = await fit({ l1: scaled(o.l1, lambda), l2: scaled(o.l2, lambda) }, start);
    fits.push({ ...next, lambda });
    start = new Float64Array(next.coefficients.length + (o.intercept === false ? 0 : 1));
    start.set(next.coefficients);
    if (o.intercept !== false) start[next.coefficients.length] = next.intercept;
  }
  return fits;
}

async function defaultLambdas<Result extends Fit>(
  o: { readonly l1?: Penalty },
  options: GlmPathOptions,
  fit: (
    penalties: { l1: Penalty; l2: Penalty },
    start: Float64Array | undefined,
  ) => Promise<Result>,
): Promise<number[]> {
  const { nLambdas = 50, minRatio = 1e-3 } = options;
  checkInteger('nLambdas', nLambdas, 2, 10_000);
  if (!(minRatio > 0 && minRatio < 1)) {
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'minRatio must be between 0 and 1');
  }
  const none = await fit({ l1: scaled(o.l1, PROHIBITIVE), l2: 0 }, undefined);
  const first = none.l1Activation * PROHIBITIVE;
  return Array.from({ length: nLambdas }, (_, i) => first * minRatio ** (i / (nLambdas - 1)));
}
