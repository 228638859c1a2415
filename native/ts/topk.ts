import { optionNames } from '@waggle/core';
import { checkArray, checkInteger, checkObject, MAX_ROWS, positionOf } from './arrays.js';
import { fromAddon, nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { addon, type TopkArguments } from './loader.js';

export type Metric = 'ip' | 'cosine' | 'l2';

export const TOPK_MAX_K = 2_048;

/** Multiply-adds `topkSync` accepts: under a millisecond with SIMD. */
export const TOPK_SYNC_MAX_WORK = 8_388_608;

export interface TopkInput {
  /** float32 [nQueries × dim], row-major; borrowed until settled. */
  readonly queries: Float32Array;
  readonly nQueries: number;
  /** float32 [nRows × dim], row-major; borrowed until settled: do not write or transfer it meanwhile. */
  readonly matrix: Float32Array;
  readonly nRows: number;
  readonly dim: number;
  /** 1 … 2,048. */
  readonly k: number;
  readonly metric: Metric;
  /** Bitmap shared by all queries, bit r of byte r >> 3, ≥ ceil(nRows / 8) bytes; absent = every row. */
  readonly filter?: Uint8Array | undefined;
  /** One bitmap per query: [nQueries × ceil(nRows / 8)] bytes. At most one of the three filters may be given. */
  readonly filters?: Uint8Array | undefined;
  /** Allowed row numbers for all queries: ascending, unique, < nRows; empty = no row. */
  readonly allowRows?: Int32Array | undefined;
  /** Arrays to fill instead of fresh ones; leased until settled. */
  readonly out?: TopkResult | undefined;
}

export interface TopkResult {
  /** float32 [nQueries × k], best first; −Infinity pads. `l2` scores are negative squared distances. */
  readonly scores: Float32Array;
  /** int32 [nQueries × k]; −1 pads. */
  readonly rows: Int32Array;
}

/** In the order of the addon's numbers. */
export const METRICS: readonly Metric[] = ['ip', 'cosine', 'l2'];

/** The addon's number for a metric. @throws WAGGLE_NATIVE_INVALID_ARGUMENT */
export function metricCode(metric: Metric): number {
  return positionOf('metric', METRICS, metric);
}

/** At most one filter, and that long enough. @throws WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED */
export function checkFilter(
  o: Pick<TopkInput, 'nQueries' | 'nRows' | 'filter' | 'filters' | 'allowRows'>,
): void {
  let given = 0;
  if (o.filter !== undefined) {
    checkArray('filter', o.filter, 'Uint8Array', Math.ceil(o.nRows / 8));
    given += 1;
  }
  if (o.filters !== undefined) {
    checkArray('filters', o.filters, 'Uint8Array', o.nQueries * Math.ceil(o.nRows / 8));
    given += 1;
  }
  if (o.allowRows !== undefined) {
    checkArray('allowRows', o.allowRows, 'Int32Array', 0);
    given += 1;
  }
  if (given > 1) {
    throw nativeError(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
      'give one of filter, filters and allowRows',
    );
  }
}

const TOPK_OPTIONS = optionNames<TopkInput & { readonly signal?: AbortSignal | undefined }>({
  queries: true,
  nQueries: true,
  matrix: true,
  nRows: true,
  dim: true,
  k: true,
  metric: true,
  filter: true,
  filters: true,
  allowRows: true,
  out: true,
  signal: true,
});

function prepare(o: TopkInput): { args: TopkArguments; result: TopkResult } {
  checkObject('options', o, TOPK_OPTIONS);
  checkInteger('nQueries', o.nQueries, 0, MAX_ROWS);
  checkInteger('nRows', o.nRows, 0, MAX_ROWS);
  checkInteger('dim', o.dim, 1, MAX_ROWS);
  checkInteger('k', o.k, 1, TOPK_MAX_K);
  const metric = metricCode(o.metric);
  checkArray('queries', o.queries, 'Float32Array', o.nQueries * o.dim);
  checkArray('matrix', o.matrix, 'Float32Array', o.nRows * o.dim);
  checkFilter(o);
  const nAnswers = o.nQueries * o.k;
  checkInteger('nQueries × k', nAnswers, 0, MAX_ROWS);
  const result = o.out ?? { scores: new Float32Array(nAnswers), rows: new Int32Array(nAnswers) };
  if (o.out !== undefined) {
    checkArray('out.scores', result.scores, 'Float32Array', nAnswers);
    checkArray('out.rows', result.rows, 'Int32Array', nAnswers);
  }
  const args: TopkArguments = [
    o.queries,
    o.nQueries,
    o.matrix,
    o.nRows,
    o.dim,
    o.k,
    metric,
    o.filter,
    o.filters,
    o.allowRows,
    result.scores,
    result.rows,
  ];
  return { args, result };
}

/**
 * The k rows most similar to each query: exact, best first, ties to the lower row, the same answer at any
 * thread count. A zero vector has cosine 0 with everything. Runs on the engine's own threads (or the GPU, where
 * the work is worth the copy).
 *
 * @param o shapes as in {@link TopkInput}; `signal` is polled between tiles
 * @returns float32 scores and int32 rows, both [nQueries × k]; O(nQueries · nRows · dim)
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED before it starts; _NAN when a query or an
 *   allowed row is not finite or a score overflows; _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function topk(
  o: TopkInput & { readonly signal?: AbortSignal | undefined },
): Promise<TopkResult> {
  const { args, result } = prepare(o);
  await runJob((engine) => engine.topk(...args), o.signal);
  return result;
}

/**
 * {@link topk} on the calling thread, for microsecond work.
 * @throws as topk; WAGGLE_NATIVE_TOO_LARGE beyond {@link TOPK_SYNC_MAX_WORK} multiply-adds
 */
export function topkSync(o: TopkInput): TopkResult {
  const { args, result } = prepare(o);
  const work = o.nQueries * o.nRows * o.dim;
  if (work > TOPK_SYNC_MAX_WORK) {
    throw nativeError(
      'WAGGLE_NATIVE_TOO_LARGE',
      `topkSync of ${work} multiply-adds; the limit is ${TOPK_SYNC_MAX_WORK}`,
      { details: { work, limit: TOPK_SYNC_MAX_WORK } },
    );
  }
  try {
    addon().topkSync(...args);
  } catch (error) {
    throw fromAddon(error);
  }
  return result;
}
