import type { Progress } from '@waggle/core';
import { optionNames } from '@waggle/core';
import {
  checkArray,
  checkFinite,
  checkInteger,
  checkObject,
  MAX_ROWS,
  positionOf,
} from './arrays.js';
import { runJob } from './jobs.js';
import type { TreesFitRowsArguments } from './loader.js';
import { withProgress } from './progress.js';
import { Trees } from './trees.js';

/**
 * `logistic`: successes of trials, predicted as a probability. `softmax`: one of `nClasses`. `squared`: a number.
 * `poisson`: a count, predicted as its mean. `quantile`: the `quantile` of a number. `lambdarank`: relevances 0 … 30
 * within each query.
 */
export type TreesObjective =
  | 'logistic'
  | 'softmax'
  | 'squared'
  | 'poisson'
  | 'quantile'
  | 'lambdarank';

/** `leaf` splits the leaf of largest gain next, `depth` all of a level before the next one. */
export type TreesGrowth = 'leaf' | 'depth';

const OBJECTIVES: readonly TreesObjective[] = [
  'logistic',
  'softmax',
  'squared',
  'poisson',
  'quantile',
  'lambdarank',
];
const GROWTHS: readonly TreesGrowth[] = ['leaf', 'depth'];

/** A set of rows, to learn from or to validate with; all arrays are borrowed until settled. */
export interface TreesFitRows {
  /** float32 [nRows × nFeatures], row-major, NaN = missing. */
  readonly x: Float32Array;
  readonly nRows: number;
  /** float64 [nRows]: successes (logistic), class number (softmax), target, or relevance (lambdarank). */
  readonly y: Float64Array;
  /** float64 [nRows], logistic only: trials, ≥ y; fractions are allowed. Default 1. */
  readonly trials?: Float64Array | undefined;
  /** float64 [nRows], ≥ 0; default 1. */
  readonly weights?: Float64Array | undefined;
  /** float64 [nRows × nTargets], added to the scores before the transform; not part of the model. */
  readonly offset?: Float64Array | undefined;
  /** uint32, lambdarank only: rows of each query, one query after the other; they add up to nRows. */
  readonly groups?: Uint32Array | undefined;
}

export interface TreesFitInput extends TreesFitRows {
  readonly nFeatures: number;
  readonly objective: TreesObjective;
  /** softmax: 2 … 4,096; one tree per class and round. */
  readonly nClasses?: number | undefined;
  /** quantile: between 0 and 1. */
  readonly quantile?: number | undefined;
  /** Feature numbers; their values are integers from 0 to 2²⁴, or NaN. */
  readonly categorical?: readonly number[] | undefined;
  /** int8 [nFeatures]: −1 = the score never rises with the feature, 1 = never falls, 0 = free. */
  readonly monotone?: Int8Array | undefined;
  /** Rounds; default 100. */
  readonly nTrees?: number | undefined;
  /** Default 0.1. */
  readonly learningRate?: number | undefined;
  /** Default 31. */
  readonly maxLeaves?: number | undefined;
  /** Splits from the root to a leaf, at most; default 0 = no limit but maxLeaves. */
  readonly maxDepth?: number | undefined;
  /** Default `leaf`. */
  readonly growth?: TreesGrowth | undefined;
  /** Bins per feature, 2 … 255 (default), besides one for missing values. */
  readonly maxBins?: number | undefined;
  /** Least sum of curvatures (of weights, with squared error) on a side; default 0.001. */
  readonly minChildWeight?: number | undefined;
  /** Default 20. */
  readonly minChildRows?: number | undefined;
  /** Default 0. */
  readonly l1?: number | undefined;
  /** Default 1. */
  readonly l2?: number | undefined;
  /** Gain a split must exceed; default 0. */
  readonly minGain?: number | undefined;
  /** Part of the rows that each round learns from; default 1. */
  readonly rowSample?: number | undefined;
  /** Part of the features that each round may use; default 1. */
  readonly featureSample?: number | undefined;
  /** Default 1. */
  readonly seed?: number | undefined;
  /** At most so many of the engine's threads; default all of them. The model does not depend on it. */
  readonly threads?: number | undefined;
  readonly validation?: TreesFitRows | undefined;
  /** Ends when the validation loss was not lower for so many rounds, and keeps the best; default never. */
  readonly earlyStoppingRounds?: number | undefined;
  /** Told the rounds done, now and then; throwing ends the training with that error. */
  readonly progress?: Progress | undefined;
}

export interface TreesFitResult {
  /** Predicts probabilities, class probabilities, numbers, means or ranking scores, by the objective. */
  readonly trees: Trees;
  /** Rounds that `trees` holds: all, or up to the lowest validation loss when stopping early. */
  readonly bestTree: number;
  /**
   * float64, after each round trained: mean log loss per trial, log loss, squared error, Poisson loss (e^score −
   * y·score), pinball loss, or 1 − NDCG@30.
   */
  readonly trainLoss: Float64Array;
  /** The same over the validation rows; empty without any. */
  readonly validationLoss: Float64Array;
  /** float64 [nFeatures]: what the splits of each feature gained. */
  readonly gain: Float64Array;
  /** float64 [nFeatures]: their number. */
  readonly splits: Float64Array;
}

const OPTIONS = optionNames<TreesFitInput & { readonly signal?: AbortSignal | undefined }>({
  x: true,
  nRows: true,
  y: true,
  trials: true,
  weights: true,
  offset: true,
  groups: true,
  nFeatures: true,
  objective: true,
  nClasses: true,
  quantile: true,
  categorical: true,
  monotone: true,
  nTrees: true,
  learningRate: true,
  maxLeaves: true,
  maxDepth: true,
  growth: true,
  maxBins: true,
  minChildWeight: true,
  minChildRows: true,
  l1: true,
  l2: true,
  minGain: true,
  rowSample: true,
  featureSample: true,
  seed: true,
  threads: true,
  validation: true,
  earlyStoppingRounds: true,
  progress: true,
  signal: true,
});

/**
 * Gradient-boosted trees on histograms (Friedman 2001; Chen & Guestrin 2016; Ke et al. 2017): second-order splits and
 * leaves, learned sides for missing values, categories split in two by their gradients. Sums of gradients are integers
 * of 18 bits each, exact in any order: the same bits for a seed at any thread count and instruction set, and on a GPU,
 * which takes large trainings where there is one. How bins, gains, categories and leaves are made is told in
 * `include/waggle/ops/trees_fit.hpp`.
 *
 * @param o shapes as in {@link TreesFitInput}; `signal` is polled between waves of splits
 * @returns a model whose `predict` decides on each float as training did on its bin, and how learning went;
 *   O(nTrees · nTargets · nRows · nFeatures · log maxLeaves) in the balanced case; memory beside the inputs is about
 *   nRows · (nFeatures + 8 + 16 · nTargets) bytes
 * @throws WAGGLE_NATIVE_NAN naming row (and feature) of a label, weight, trial or offset that is not finite, or of an
 *   infinite x, and when gradients overflow; WAGGLE_NATIVE_INVALID_ARGUMENT naming the row of a label out of range, a
 *   negative weight or a category that is none, or when there is nothing to learn (one class, no weight);
 *   WAGGLE_NATIVE_SHAPE, also for groups that do not add up; WAGGLE_NATIVE_BACKEND when a GPU that was insisted on
 *   fails; _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function treesFit(
  o: TreesFitInput & { readonly signal?: AbortSignal | undefined },
): Promise<TreesFitResult> {
  checkObject('options', o, OPTIONS, 'columns');
  const objective = positionOf('objective', OBJECTIVES, o.objective);
  const growth = positionOf('growth', GROWTHS, o.growth ?? 'leaf');
  checkInteger('nFeatures', o.nFeatures, 1, 1 << 24);
  if (o.objective === 'softmax') checkInteger('nClasses', o.nClasses, 2, 4_096);
  if (o.objective === 'quantile') checkFinite('quantile', o.quantile);
  const nTargets = o.objective === 'softmax' ? (o.nClasses ?? 1) : 1;
  const train = checkRows('', o, o.nFeatures, nTargets);
  const validation: TreesFitRowsArguments =
    o.validation === undefined
      ? [undefined, 0, undefined, undefined, undefined, undefined, undefined]
      : checkRows('validation.', o.validation, o.nFeatures, nTargets);
  for (const [i, feature] of (o.categorical ?? []).entries()) {
    checkInteger(`categorical[${i}]`, feature, 0, o.nFeatures - 1);
  }
  if (o.monotone !== undefined) checkArray('monotone', o.monotone, 'Int8Array', o.nFeatures);
  const nTrees = integer('nTrees', o.nTrees ?? 100, 1, 100_000);
  const numbers = Float64Array.of(
    objective,
    o.nClasses ?? 0,
    o.quantile ?? 0.5,
    nTrees,
    finite('learningRate', o.learningRate ?? 0.1),
    integer('maxLeaves', o.maxLeaves ?? 31, 1, 65_536),
    integer('maxDepth', o.maxDepth ?? 0, 0, 512),
    growth,
    integer('maxBins', o.maxBins ?? 255, 2, 255),
    finite('minChildWeight', o.minChildWeight ?? 1e-3),
    integer('minChildRows', o.minChildRows ?? 20, 0, MAX_ROWS),
    finite('l1', o.l1 ?? 0),
    finite('l2', o.l2 ?? 1),
    finite('minGain', o.minGain ?? 0),
    finite('rowSample', o.rowSample ?? 1),
    finite('featureSample', o.featureSample ?? 1),
    integer('seed', o.seed ?? 1, 0, Number.MAX_SAFE_INTEGER),
    o.threads === undefined ? 0 : integer('threads', o.threads, 1, 4_096),
    integer('earlyStoppingRounds', o.earlyStoppingRounds ?? 0, 0, 100_000),
  );
  const { progress } = o;
  const rounds = new Float64Array(1);
  const tell = (done: number): void =>
    progress?.({ step: 'trees', done, total: nTrees, unit: 'rounds' });
  const look = progress === undefined ? undefined : () => tell(rounds[0]!);
  const fitted = await withProgress(look, o.signal, (signal) =>
    runJob(
      (engine) =>
        engine.treesFit(
          ...train,
          ...validation,
          o.nFeatures,
          nTargets,
          o.categorical === undefined ? undefined : Int32Array.from(o.categorical),
          o.monotone,
          numbers,
          rounds,
        ),
      signal,
    ),
  );
  tell(rounds[0]!);
  return { ...fitted, trees: Trees.adopt(fitted.trees) };
}

function checkRows(
  of: string,
  rows: TreesFitRows,
  nFeatures: number,
  nTargets: number,
): TreesFitRowsArguments {
  const { nRows } = rows;
  checkInteger(`${of}nRows`, nRows, 1, MAX_ROWS);
  checkInteger(`${of}nRows × nFeatures`, nRows * nFeatures, 1, Number.MAX_SAFE_INTEGER);
  checkInteger(`${of}nRows × nTargets`, nRows * nTargets, 1, Number.MAX_SAFE_INTEGER);
  checkArray(`${of}x`, rows.x, 'Float32Array', nRows * nFeatures);
  checkArray(`${of}y`, rows.y, 'Float64Array', nRows);
  if (rows.trials !== undefined) checkArray(`${of}trials`, rows.trials, 'Float64Array', nRows);
  if (rows.weights !== undefined) checkArray(`${of}weights`, rows.weights, 'Float64Array', nRows);
  if (rows.offset !== undefined) {
    checkArray(`${of}offset`, rows.offset, 'Float64Array', nRows * nTargets);
  }
  if (rows.groups !== undefined) checkArray(`${of}groups`, rows.groups, 'Uint32Array', 0);
  return [rows.x, nRows, rows.y, rows.trials, rows.weights, rows.offset, rows.groups];
}

function integer(name: string, value: unknown, least: number, most: number): number {
  checkInteger(name, value, least, most);
  return value;
}

function finite(name: string, value: unknown): number {
  checkFinite(name, value);
  return value;
}
