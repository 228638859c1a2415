import { optionNames } from '@waggle/core';
import {
  checkArray,
  checkCounted,
  checkFinite,
  checkInteger,
  checkObject,
  MAX_ROWS,
} from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { addon, type IvfIndexHandle, type RawIvfStats } from './loader.js';
import { withProgress } from './progress.js';
import {
  checkFilter,
  METRICS,
  type Metric,
  metricCode,
  TOPK_MAX_K,
  type TopkResult,
} from './topk.js';

export const IVF_MAX_LISTS = 65_536;

/** `train` clusters a sample, `assign` gives every row its list, `encode` fills the lists, `measure` finds the probes. */
export type IvfStage = 'train' | 'assign' | 'encode' | 'measure';

const STAGES: readonly IvfStage[] = ['train', 'assign', 'encode', 'measure'];

export interface IvfBuildInput {
  /** float32 [nRows × dim], row-major; borrowed until settled, then not needed any more. */
  readonly matrix: Float32Array;
  /** 1 … 2³¹ − 1. */
  readonly nRows: number;
  /** 1 … 65,536. */
  readonly dim: number;
  readonly metric: Metric;
  /** Default 4·√nRows; fewer are made when rows are too few or too alike. */
  readonly nLists?: number | undefined;
  /** `int8` (default): codes, a quarter of the memory and of the time. `f32`: the rows themselves. */
  readonly lists?: 'int8' | 'f32' | undefined;
  /**
   * Default true: a copy of the rows is kept, the best candidates are re-scored, and scores are those of `topk` to the
   * bit. False (int8 lists only): a quarter of the memory; scores are approximations.
   */
  readonly keepRows?: boolean | undefined;
  /** Share of the true `recallK` best rows that a search shall find on average; default 0.95. */
  readonly recall?: number | undefined;
  /** Default 10; up to 2,047. */
  readonly recallK?: number | undefined;
  /**
   * float32 [nHeldOut × dim]: queries like those to come, none of them a row, to measure the recall on. Without any,
   * `nSample` rows stand in, each ignored in its own answer.
   */
  readonly heldOut?: Float32Array | undefined;
  readonly nHeldOut?: number | undefined;
  /** Default 256. */
  readonly nSample?: number | undefined;
  /** Default 1. */
  readonly seed?: number | undefined;
  /** Called now and then with the stage and the part of it done, 0 … 1; throwing ends the build with that error. */
  readonly onProgress?: ((stage: IvfStage, done: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface IvfSearchInput {
  /** float32 [nQueries × dim], row-major; borrowed until settled. */
  readonly queries: Float32Array;
  readonly nQueries: number;
  /** 1 … 2,048. */
  readonly k: number;
  /** Lists to probe per query; default what the build chose for its recall. See `stats().curve`. */
  readonly nProbe?: number | undefined;
  /** Filters as in `topk`: at most one of the three. */
  readonly filter?: Uint8Array | undefined;
  readonly filters?: Uint8Array | undefined;
  readonly allowRows?: Int32Array | undefined;
  /** Arrays to fill instead of fresh ones; leased until settled. */
  readonly out?: TopkResult | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface IvfSearchResult extends TopkResult {
  /** Rows scored, over all queries. */
  readonly rowsScanned: number;
  /** Lists probed, over all queries. */
  readonly listsProbed: number;
  /** Queries whose filter was so strong that all allowed rows were read instead: their answers are exact. */
  readonly exhaustive: number;
}

export interface IvfRecallPoint {
  readonly nProbe: number;
  /** Mean over the measured queries. */
  readonly recall: number;
  readonly standardError: number;
}

export interface IvfStats {
  readonly nRows: number;
  readonly dim: number;
  readonly metric: Metric;
  readonly nLists: number;
  readonly lists: 'int8' | 'f32';
  readonly keepsRows: boolean;
  /** Lists that a search probes unless told otherwise. */
  readonly nProbe: number;
  readonly recallTarget: number;
  readonly recallK: number;
  /** Queries that the curve was measured on: given ones (`heldOut`) or rows. */
  readonly nMeasured: number;
  readonly heldOut: boolean;
  /** What was measured, by probes, ascending. */
  readonly curve: readonly IvfRecallPoint[];
  readonly largestList: number;
  /** Memory of the index; mapped memory counts. */
  readonly bytes: number;
}

function toStats(raw: RawIvfStats): IvfStats {
  const { metric, int8Lists, ...rest } = raw;
  return { ...rest, metric: METRICS[metric]!, lists: int8Lists ? 'int8' : 'f32' };
}

function checkPath(path: unknown): asserts path is string {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return;
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    'path must be a string that is not empty and holds no zero byte',
    { details: { argument: 'path' } },
  );
}

const BUILD_OPTIONS = optionNames<IvfBuildInput>({
  matrix: true,
  nRows: true,
  dim: true,
  metric: true,
  nLists: true,
  lists: true,
  keepRows: true,
  recall: true,
  recallK: true,
  heldOut: true,
  nHeldOut: true,
  nSample: true,
  seed: true,
  onProgress: true,
  signal: true,
});
const SEARCH_OPTIONS = optionNames<IvfSearchInput>({
  queries: true,
  nQueries: true,
  k: true,
  nProbe: true,
  filter: true,
  filters: true,
  allowRows: true,
  out: true,
  signal: true,
});

/**
 * Approximate nearest rows of large sets: rows in lists around trained centroids, of which a search reads the nearest.
 * How many it must read for a recall is measured on the caller's data while building and stored with the index.
 * Immutable; any number of searches may run at once.
 */
export class IvfIndex {
  readonly #handle: IvfIndexHandle;
  readonly #stats: IvfStats;
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  private constructor(handle: IvfIndexHandle) {
    this.#handle = handle;
    this.#stats = toStats(addon().ivfStats(handle));
  }

  /**
   * Trains, fills and measures an index: the same one for a seed at any thread count. When the recall is out of reach
   * (int8 lists without rows cannot tell very near neighbours apart), probes are chosen where more stop helping:
   * `stats().curve` tells what was reached.
   *
   * @param o shapes as in {@link IvfBuildInput}; `signal` is polled between tiles
   * @throws WAGGLE_NATIVE_NAN naming a row that holds NaN or infinity or whose squared length exceeds 1e36;
   *   WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  static async build(o: IvfBuildInput): Promise<IvfIndex> {
    checkObject('options', o, BUILD_OPTIONS);
    checkInteger('nRows', o.nRows, 1, MAX_ROWS);
    checkInteger('dim', o.dim, 1, 65_536);
    const metric = metricCode(o.metric);
    const nLists = o.nLists ?? 0;
    if (o.nLists !== undefined) checkInteger('nLists', o.nLists, 1, IVF_MAX_LISTS);
    const lists = o.lists ?? 'int8';
    if (lists !== 'int8' && lists !== 'f32') {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        `lists is ${String(lists)}; it must be int8 or f32`,
      );
    }
    const keepRows = o.keepRows ?? true;
    if (lists === 'f32' && !keepRows) {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        'lists of f32 are the rows: keepRows cannot be false',
        { details: { argument: 'keepRows' } },
      );
    }
    const recall = o.recall ?? 0.95;
    checkFinite('recall', recall);
    if (recall <= 0 || recall > 1) {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        `recall is ${recall}; it must be above 0 and at most 1`,
      );
    }
    const recallK = o.recallK ?? 10;
    checkInteger('recallK', recallK, 1, TOPK_MAX_K - 1);
    checkCounted('heldOut', o.heldOut, 'nHeldOut', o.nHeldOut);
    const nHeldOut = o.nHeldOut ?? 0;
    checkInteger('nHeldOut', nHeldOut, 0, MAX_ROWS);
    const nSample = o.nSample ?? 256;
    checkInteger('nSample', nSample, 1, MAX_ROWS);
    const seed = o.seed ?? 1;
    checkInteger('seed', seed, 0, Number.MAX_SAFE_INTEGER);
    checkArray('matrix', o.matrix, 'Float32Array', o.nRows * o.dim);
    if (nHeldOut > 0) checkArray('heldOut', o.heldOut, 'Float32Array', nHeldOut * o.dim);
    const progress = new Float64Array(2);
    const { onProgress } = o;
    const look =
      onProgress === undefined ? undefined : () => onProgress(STAGES[progress[0]!]!, progress[1]!);
    const handle = await withProgress(look, o.signal, (signal) =>
      runJob(
        (engine) =>
          engine.ivfBuild(
            o.matrix,
            o.nRows,
            o.dim,
            metric,
            nLists,
            lists === 'int8',
            keepRows,
            recall,
            recallK,
            o.heldOut,
            nHeldOut,
            nSample,
            seed,
            progress,
          ),
        signal,
      ),
    );
    onProgress?.('measure', 1);
    return new IvfIndex(handle);
  }

  /**
   * Maps an index that {@link save} wrote, after checking every byte of it.
   * @throws WAGGLE_NATIVE_FILE saying what is wrong with the file; WAGGLE_NATIVE_INVALID_ARGUMENT, _BUSY,
   *   _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  static async load(
    path: string,
    o: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<IvfIndex> {
    checkPath(path);
    checkObject('options', o);
    return new IvfIndex(await runJob((engine) => engine.ivfLoad(path), o.signal));
  }

  /**
   * The k best rows among the nearest lists, best first, ties to the lower row. The answer to a query depends neither on
   * the other queries nor on threads; many queries in one call cost far less than one at a time, since a list is read
   * once for all of them.
   *
   * Under a filter, lists are probed until they hold as many allowed rows as a search without one would read, so that
   * recall holds; where reading all allowed rows costs less than that, they are read and the answer is exact.
   *
   * @returns scores (those of `topk` to the bit when rows are kept, else approximations) and rows, both [nQueries × k];
   *   O(nQueries · (nLists + rows of the probed lists) · dim) byte operations
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED, _NAN, _LEASED, _BUSY,
   *   _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  async search(o: IvfSearchInput): Promise<IvfSearchResult> {
    this.#checkOpen();
    checkObject('options', o, SEARCH_OPTIONS);
    checkInteger('nQueries', o.nQueries, 0, MAX_ROWS);
    checkInteger('k', o.k, 1, TOPK_MAX_K);
    if (o.nProbe !== undefined) checkInteger('nProbe', o.nProbe, 1, MAX_ROWS);
    checkArray('queries', o.queries, 'Float32Array', o.nQueries * this.#stats.dim);
    checkFilter({ ...o, nRows: this.#stats.nRows });
    const nAnswers = o.nQueries * o.k;
    checkInteger('nQueries × k', nAnswers, 0, MAX_ROWS);
    const out = o.out ?? { scores: new Float32Array(nAnswers), rows: new Int32Array(nAnswers) };
    if (o.out !== undefined) {
      checkArray('out.scores', out.scores, 'Float32Array', nAnswers);
      checkArray('out.rows', out.rows, 'Int32Array', nAnswers);
    }
    const report = await this.#track(
      runJob(
        (engine) =>
          engine.ivfSearch(
            this.#handle,
            o.queries,
            o.nQueries,
            o.k,
            o.nProbe ?? 0,
            o.filter,
            o.filters,
            o.allowRows,
            out.scores,
            out.rows,
          ),
        o.signal,
      ),
    );
    return { scores: out.scores, rows: out.rows, ...report };
  }

  /**
   * Writes the index to `path`, whole or not at all; the same bytes for the same index.
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_FILE naming the system's reason; WAGGLE_NATIVE_INVALID_ARGUMENT, _BUSY;
   *   WAGGLE_ABORTED
   */
  async save(path: string, o: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    this.#checkOpen();
    checkPath(path);
    checkObject('options', o);
    await this.#track(runJob((engine) => engine.ivfSave(this.#handle, path), o.signal));
  }

  /** @throws WAGGLE_NATIVE_CLOSED */
  stats(): IvfStats {
    this.#checkOpen();
    return this.#stats;
  }

  /** Refuses new work at once, waits for what runs, then gives the memory back. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#running);
    addon().ivfClose(this.#handle);
  }

  #checkOpen(): void {
    if (this.#closing === undefined) return;
    throw nativeError('WAGGLE_NATIVE_CLOSED', 'the IVF index is closed');
  }

  async #track<Result>(job: Promise<Result>): Promise<Result> {
    this.#running.add(job);
    try {
      return await job;
    } finally {
      this.#running.delete(job);
    }
  }
}
