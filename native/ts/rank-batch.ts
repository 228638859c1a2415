import { optionNames } from '@waggle/core';
import {
  checkArray,
  checkCounted,
  checkFinite,
  checkInteger,
  checkObject,
  MAX_ROWS,
  positionOf,
} from './arrays.js';
import type { DeviceItems } from './device-items.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';
import type { RankBatchArguments } from './loader.js';
import { SCORE_TERM_COUNT, type ScoreWeights } from './score-rank.js';
import { type Metric, metricCode } from './topk.js';
import { Trees } from './trees.js';

/** p = σ(calibration.a · (intercept + Σ coefficients[j] · x[j]) + calibration.b), summed in float64 in the order of j. */
export interface LinearRankModel {
  /** float64, exactly [nFeatures]. */
  readonly coefficients: Float64Array;
  readonly intercept: number;
  /** Platt's line; default (1, 0). */
  readonly calibration?: { readonly a: number; readonly b: number } | undefined;
}

/**
 * Columns of `scoreRank`, one number per item, in float32: spend = (p · price) · volume + fixedSpend, payout =
 * spend · payoutShare, where p is the model's prediction.
 */
export interface RankBatchColumns {
  readonly price: Float32Array;
  /** Default 0. */
  readonly fixedSpend?: Float32Array | undefined;
  /** Default 0. */
  readonly payoutShare?: Float32Array | undefined;
  /** Default 1. */
  readonly q?: Float32Array | undefined;
  /** Default: the similarity, or 0 without one. */
  readonly fit?: Float32Array | undefined;
  readonly advertiser?: Float32Array | undefined;
  readonly explore?: Float32Array | undefined;
  /** Together with `omega`. */
  readonly goalUnits?: Float32Array | undefined;
  readonly frequency?: Float32Array | undefined;
  readonly mu?: Float32Array | undefined;
  readonly omega?: Float32Array | undefined;
  readonly rho?: Float32Array | undefined;
}

/** Everything is borrowed until settled. */
export interface RankBatchInput {
  readonly nRequests: number;
  readonly nItems: number;
  /** ≥ 1; fewer come back where fewer are eligible. */
  readonly k: number;
  /** Bitmap of allowed items shared by all requests, bit i of byte i >> 3, ≥ ceil(nItems / 8) bytes; absent = all. */
  readonly eligible?: Uint8Array | undefined;
  /** Instead: one bitmap per request, [nRequests × ceil(nItems / 8)] bytes. */
  readonly eligiblePerRequest?: Uint8Array | undefined;
  /**
   * Instead: request r chooses from items[offsets[r]] … items[offsets[r + 1] − 1]. An item named twice is two candidates
   * and may come back twice.
   */
  readonly candidates?: { readonly items: Int32Array; readonly offsets: Int32Array } | undefined;
  /** Similarity of request and item, to the bit what `topk` scores. */
  readonly similarity?:
    | {
        /** float32 [nRequests × dim] */
        readonly queries: Float32Array;
        /** float32 [nItems × dim] */
        readonly embeddings: Float32Array;
        readonly dim: number;
        readonly metric: Metric;
        /** The model's last column; default false. */
        readonly isFeature?: boolean | undefined;
      }
    | undefined;
  /** float32 [nItems × nItemFeatures]: the model's first columns. */
  readonly itemFeatures?: Float32Array | undefined;
  readonly nItemFeatures?: number | undefined;
  /** float32 [nRequests × nRequestFeatures]: the columns after them. */
  readonly requestFeatures?: Float32Array | undefined;
  readonly nRequestFeatures?: number | undefined;
  /**
   * What stays on the GPU of `similarity.embeddings` and `itemFeatures`, made of these very arrays; else they travel with
   * every call that goes there.
   */
  readonly resident?: DeviceItems | undefined;
  readonly model: Trees | LinearRankModel;
  /** Which of the trees' outputs is p; default the last. */
  readonly output?: number | undefined;
  readonly columns: RankBatchColumns;
  /** float32 [nRequests]; default 1. */
  readonly volume?: Float32Array | undefined;
  readonly weights: ScoreWeights;
  /** int32 [nItems]: the item's advertiser. */
  readonly group?: Int32Array | undefined;
  readonly maxPerGroup?: number | undefined;
  /** int32 [nItems]: competitor group, −1 for none. */
  readonly separation?: Int32Array | undefined;
  /** Arrays to fill instead of fresh ones; leased until settled. */
  readonly out?: RankBatchResult | undefined;
}

export interface RankBatchResult {
  /** int32 [nRequests × k], best first; −1 pads. */
  readonly items: Int32Array;
  /** float64 [nRequests × k]; −Infinity pads. */
  readonly scores: Float64Array;
  /** float64 [nRequests × k × 9], order of SCORE_TERMS; each row adds up to its score exactly; 0 pads. */
  readonly terms: Float64Array;
  /** float32 [nRequests × k]: the model's p; 0 pads. */
  readonly predictions: Float32Array;
  /** int32 [nRequests × 2]: chosen and eligible items of each request. */
  readonly counts: Int32Array;
}

const PARAM_COUNT = 20;

const COLUMNS: readonly (keyof RankBatchColumns)[] = [
  'price',
  'fixedSpend',
  'payoutShare',
  'q',
  'fit',
  'advertiser',
  'explore',
  'goalUnits',
  'frequency',
  'mu',
  'omega',
  'rho',
];

function newResult(nRequests: number, k: number): RankBatchResult {
  const n = nRequests * k;
  return {
    items: new Int32Array(n),
    scores: new Float64Array(n),
    terms: new Float64Array(n * SCORE_TERM_COUNT),
    predictions: new Float32Array(n),
    counts: new Int32Array(nRequests * 2),
  };
}

const OPTIONS = optionNames<RankBatchInput & { readonly signal?: AbortSignal | undefined }>({
  nRequests: true,
  nItems: true,
  k: true,
  eligible: true,
  eligiblePerRequest: true,
  candidates: true,
  similarity: true,
  itemFeatures: true,
  nItemFeatures: true,
  requestFeatures: true,
  nRequestFeatures: true,
  resident: true,
  model: true,
  output: true,
  columns: true,
  volume: true,
  weights: true,
  group: true,
  maxPerGroup: true,
  separation: true,
  out: true,
  signal: true,
});

function checkSizes(o: RankBatchInput): void {
  checkObject('options', o, OPTIONS);
  checkInteger('nRequests', o.nRequests, 0, MAX_ROWS);
  checkInteger('nItems', o.nItems, 0, MAX_ROWS);
  checkInteger('k', o.k, 1, MAX_ROWS);
  checkInteger('nRequests × k × 9', o.nRequests * o.k * SCORE_TERM_COUNT, 0, MAX_ROWS);
  checkInteger('nItemFeatures', o.nItemFeatures ?? 0, 0, MAX_ROWS);
  checkInteger('nRequestFeatures', o.nRequestFeatures ?? 0, 0, MAX_ROWS);
  checkInteger('maxPerGroup', o.maxPerGroup ?? 0, 0, MAX_ROWS);
  const choices = [o.eligible, o.eligiblePerRequest, o.candidates];
  if (choices.filter((given) => given !== undefined).length > 1) {
    throw nativeError(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
      'give one of eligible, eligiblePerRequest and candidates',
    );
  }
}

function checkInputs(o: RankBatchInput): void {
  const { nRequests, nItems } = o;
  for (const name of ['columns', 'weights', 'model'] as const) checkObject(name, o[name]);
  if (o.candidates !== undefined) {
    checkObject('candidates', o.candidates);
    checkArray('candidates.items', o.candidates.items, 'Int32Array', 0);
    checkArray('candidates.offsets', o.candidates.offsets, 'Int32Array', nRequests + 1);
  }
  const rowBytes = Math.ceil(nItems / 8);
  if (o.eligible !== undefined) checkArray('eligible', o.eligible, 'Uint8Array', rowBytes);
  if (o.eligiblePerRequest !== undefined) {
    checkArray('eligiblePerRequest', o.eligiblePerRequest, 'Uint8Array', nRequests * rowBytes);
  }
  if (o.similarity !== undefined) {
    checkObject('similarity', o.similarity);
    const { queries, embeddings, dim, metric } = o.similarity;
    checkInteger('similarity.dim', dim, 1, MAX_ROWS);
    metricCode(metric);
    checkArray('similarity.queries', queries, 'Float32Array', nRequests * dim);
    checkArray('similarity.embeddings', embeddings, 'Float32Array', nItems * dim);
  }
  checkCounted('itemFeatures', o.itemFeatures, 'nItemFeatures', o.nItemFeatures);
  checkCounted('requestFeatures', o.requestFeatures, 'nRequestFeatures', o.nRequestFeatures);
  const { nItemFeatures = 0, nRequestFeatures = 0 } = o;
  if (nItemFeatures > 0) {
    checkArray('itemFeatures', o.itemFeatures, 'Float32Array', nItems * nItemFeatures);
  }
  if (nRequestFeatures > 0) {
    checkArray('requestFeatures', o.requestFeatures, 'Float32Array', nRequests * nRequestFeatures);
  }
  for (const [name, column] of Object.entries(o.columns)) {
    positionOf('name of a column', COLUMNS, name as keyof RankBatchColumns);
    if (column !== undefined) checkArray(`columns.${name}`, column, 'Float32Array', nItems);
  }
  checkArray('columns.price', o.columns.price, 'Float32Array', nItems);
  if (o.volume !== undefined) checkArray('volume', o.volume, 'Float32Array', nRequests);
  if (o.group !== undefined) checkArray('group', o.group, 'Int32Array', nItems);
  if (o.separation !== undefined) checkArray('separation', o.separation, 'Int32Array', nItems);
  for (const name of ['margin', 'fit', 'advertiser', 'payout', 'explore'] as const) {
    checkFinite(`weights.${name}`, o.weights[name]);
  }
  if (!(o.model instanceof Trees)) {
    const nFeatures = nItemFeatures + nRequestFeatures + (o.similarity?.isFeature === true ? 1 : 0);
    const { coefficients } = o.model;
    checkArray('model.coefficients', coefficients, 'Float64Array', nFeatures);
    if (coefficients.length > nFeatures) {
      throw nativeError(
        'WAGGLE_NATIVE_SHAPE',
        `model.coefficients has ${coefficients.length} elements; there are ${nFeatures} features`,
        { details: { argument: 'model.coefficients' } },
      );
    }
    checkFinite('model.intercept', o.model.intercept);
    checkFinite('model.calibration.a', o.model.calibration?.a ?? 1);
    checkFinite('model.calibration.b', o.model.calibration?.b ?? 0);
  }
}

function checkOutputs(out: RankBatchResult, nRequests: number, k: number): void {
  const n = nRequests * k;
  checkArray('out.items', out.items, 'Int32Array', n);
  checkArray('out.scores', out.scores, 'Float64Array', n);
  checkArray('out.terms', out.terms, 'Float64Array', n * SCORE_TERM_COUNT);
  checkArray('out.predictions', out.predictions, 'Float32Array', n);
  checkArray('out.counts', out.counts, 'Int32Array', nRequests * 2);
}

function paramsOf(o: RankBatchInput): Float64Array {
  const linear = o.model instanceof Trees ? undefined : o.model;
  const output = o.output ?? (o.model instanceof Trees ? o.model.nOutputs - 1 : 0);
  checkInteger('output', output, 0, MAX_ROWS);
  const params = new Float64Array(PARAM_COUNT);
  params.set([
    o.nRequests,
    o.nItems,
    o.k,
    o.eligiblePerRequest === undefined ? 0 : 1,
    o.candidates?.items.length ?? 0,
    o.similarity?.dim ?? 0,
    o.similarity === undefined ? 0 : metricCode(o.similarity.metric),
    o.nItemFeatures ?? 0,
    o.nRequestFeatures ?? 0,
    o.similarity?.isFeature === true ? 1 : 0,
    output,
    linear?.intercept ?? 0,
    linear?.calibration?.a ?? 1,
    linear?.calibration?.b ?? 0,
    o.weights.margin,
    o.weights.fit,
    o.weights.advertiser,
    o.weights.payout,
    o.weights.explore,
    o.maxPerGroup ?? 0,
  ]);
  return params;
}

/**
 * From requests to their best items in one call: similarity, model, prices, score and choice for the whole batch on the
 * engine's threads, or on the GPU where one is in use and the work is worth its way there. To the bit what `topk`'s scores
 * on the CPU, `Trees.predict` and `scoreRank` give one after the other, wherever it runs.
 *
 * The model's columns are the item's features, then the request's, then (`similarity.isFeature`) the similarity; NaN is
 * missing to trees and refused by a linear model. Items are tried in ascending order, or in that of their list: the
 * earlier one wins a tie.
 *
 * @param o shapes as in {@link RankBatchInput}; `signal` is polled between tiles of 512 candidates
 * @returns k items per request with their terms; O(candidates · (dim + nTrees)), memory O(candidates in flight)
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED, _CLOSED before it starts; _NAN naming the request
 *   whose numbers are not finite; _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function rankBatch(
  o: RankBatchInput & { readonly signal?: AbortSignal | undefined },
): Promise<RankBatchResult> {
  checkSizes(o);
  checkInputs(o);
  const result = o.out ?? newResult(o.nRequests, o.k);
  if (o.out !== undefined) checkOutputs(result, o.nRequests, o.k);
  const trees = o.model instanceof Trees ? o.model : undefined;
  const { columns: c } = o;
  const args: RankBatchArguments = [
    paramsOf(o),
    o.eligible ?? o.eligiblePerRequest,
    o.candidates?.items,
    o.candidates?.offsets,
    o.similarity?.queries,
    o.similarity?.embeddings,
    o.itemFeatures,
    o.requestFeatures,
    trees?.borrow(),
    o.model instanceof Trees ? undefined : o.model.coefficients,
    c.price,
    o.volume,
    c.fixedSpend,
    c.payoutShare,
    c.q,
    c.fit,
    c.advertiser,
    c.explore,
    c.goalUnits,
    c.frequency,
    c.mu,
    c.omega,
    c.rho,
    o.group,
    o.separation,
    result.items,
    result.scores,
    result.terms,
    result.predictions,
    result.counts,
    o.resident?.borrow(),
  ];
  const job = runJob((engine) => engine.rankBatch(...args), o.signal);
  await (trees === undefined ? job : trees.during(job));
  return result;
}
