import { optionNames, throwIfAborted } from '@waggle/core';
import { checkArray, checkBoolean, checkInteger, checkObject, positionOf } from './arrays.js';
import { fromAddon, nativeError } from './errors.js';
import { MAX_JOBS_IN_FLIGHT, runJob } from './jobs.js';
import { addon, type IdArguments, type IndexHandle, type SubmittedJob } from './loader.js';
import { checkSignal, waitForTurn } from './signals.js';
import { type PackedIds, packIds, StringIds } from './string-ids.js';
import { METRICS, type Metric, metricCode, TOPK_MAX_K } from './topk.js';

export type { StringIds } from './string-ids.js';

/** How vectors are kept. */
export type VectorDtype = 'f32' | 'f16' | 'bf16' | 'int8';
export type IdType = 'uint64' | 'string';
export type IdsOf<T extends IdType> = T extends 'uint64' ? BigUint64Array : readonly string[];

/** 'full' reads every byte; 'header' only what says where things are: milliseconds, whatever the size. */
export type FileVerification = 'full' | 'header';

export const VECTOR_INDEX_MAX_DIM = 65_536;
export const VECTOR_INDEX_MAX_ROWS = 2_147_483_646;

export interface VectorIndexOptions<T extends IdType = IdType> {
  /** 1 … 65,536. */
  readonly dim: number;
  readonly metric: Metric;
  readonly idType: T;
  /** Default 'f32'. */
  readonly dtype?: VectorDtype | undefined;
  /**
   * Floats kept beside encoded vectors make every answer exact; dropping them saves memory. Default true. Beside `bf16`
   * they cost nothing: its codes are their upper halves, and what is kept are the lower halves.
   */
  readonly keepF32?: boolean | undefined;
  /** Rows it may hold, deleted ones included. Default and most: 2³¹ − 2. */
  readonly maxRows?: number | undefined;
}

/**
 * What a search may return. Ids that are not there are ignored. Rows and bits are row numbers; `layout` is that of the
 * answer or stats they come from: with it, numbers made stale by compact() are refused instead of misread.
 */
export type VectorIndexFilter<T extends IdType = IdType> =
  | { readonly ids: IdsOf<T> }
  | { readonly rows: Int32Array; readonly layout?: number | undefined }
  | { readonly bitmap: Uint8Array; readonly layout?: number | undefined };

export interface VectorIndexQuery<T extends IdType = IdType> {
  /** float32 [nQueries × dim], row-major; borrowed until settled. */
  readonly queries: Float32Array;
  readonly nQueries: number;
  /** 1 … 2,048. */
  readonly k: number;
  readonly filter?: VectorIndexFilter<T> | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface VectorIndexResult<T extends IdType = IdType> {
  /** [nQueries × k]: 64-bit numbers padded with 2⁶⁴ − 1, or strings decoded on demand, undefined for pads. */
  readonly ids: T extends 'uint64' ? BigUint64Array : StringIds;
  /** float32 [nQueries × k], best first; −Infinity pads. */
  readonly scores: Float32Array;
  /** int32 [nQueries × k]; −1 pads. */
  readonly rows: Int32Array;
  /** Every query's rows are surely those of an exact float search. Always true while floats are kept. */
  readonly certified: boolean;
  /** int32 [nQueries]: rows that may or may not belong among the k best; 0 while floats are kept. */
  readonly nInDoubt: Int32Array;
  /** The version that was searched. */
  readonly version: number;
  /** The numbering that `rows` belong to. */
  readonly layout: number;
}

export interface VectorIndexStats {
  readonly rows: { readonly live: number; readonly deleted: number };
  readonly segments: number;
  /** Rises with every write that changed something. */
  readonly version: number;
  /** Rises when compact() renumbers rows. */
  readonly layout: number;
  readonly bytes: {
    readonly vectors: number;
    /** Codes, scales and error bounds. */
    readonly encoded: number;
    readonly ids: number;
    readonly idMap: number;
    readonly bitmaps: number;
    /** All of these. */
    readonly total: number;
    /** How much of the total is the mapped file. */
    readonly mapped: number;
    /** Address space set aside for rows to come; takes no memory yet. */
    readonly reserved: number;
  };
}

const NO_IDS: IdArguments = [0, undefined, undefined, undefined];
const DTYPES: readonly VectorDtype[] = ['f32', 'f16', 'bf16', 'int8'];
const ID_TYPES: readonly IdType[] = ['uint64', 'string'];

const CREATE_OPTIONS = optionNames<VectorIndexOptions>({
  dim: true,
  metric: true,
  idType: true,
  dtype: true,
  keepF32: true,
  maxRows: true,
});
const SEARCH_OPTIONS = optionNames<VectorIndexQuery>({
  queries: true,
  nQueries: true,
  k: true,
  filter: true,
  signal: true,
});
const FILTERS = optionNames<VectorIndexFilter>({
  ids: true,
  rows: true,
  bitmap: true,
  layout: true,
});

function checkPath(path: unknown): asserts path is string {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return;
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    'path must be a string that is neither empty nor holds a zero byte',
    { details: { argument: 'path' } },
  );
}

/**
 * Vectors under external ids that change while they are searched.
 *
 * - A search sees exactly one version: all of a write or nothing of it, however many writes go on meanwhile.
 * - Writes follow one another in the order of their calls. One that fails (a NaN anywhere in the batch, say) changes
 *   nothing.
 * - Of two equal ids in a batch the last wins, as if they had come one after the other.
 * - Rows number vectors in order of arrival; overwriting an id gives it a new row. They survive saving and loading;
 *   compact() renumbers them where it drops deleted ones (`layout` says so). Ids never change.
 *
 * An index belongs to the thread that opened it; other threads load the saved file and share its pages.
 */
export class VectorIndex<T extends IdType = IdType> {
  readonly dim: number;
  readonly metric: Metric;
  readonly dtype: VectorDtype;
  readonly keepF32: boolean;
  readonly idType: T;
  readonly maxRows: number;
  readonly #handle: IndexHandle;
  readonly #running = new Set<Promise<unknown>>();
  #lastWrite: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | undefined;

  private constructor(handle: IndexHandle, o: Required<VectorIndexOptions<T>>) {
    this.#handle = handle;
    this.dim = o.dim;
    this.metric = o.metric;
    this.dtype = o.dtype as VectorDtype;
    this.keepF32 = o.keepF32 as boolean;
    this.idType = o.idType;
    this.maxRows = o.maxRows as number;
  }

  /**
   * An empty index.
   * @throws WAGGLE_NATIVE_INVALID_ARGUMENT
   */
  static create<T extends IdType>(o: VectorIndexOptions<T>): VectorIndex<T> {
    checkObject('options', o, CREATE_OPTIONS);
    checkInteger('dim', o.dim, 1, VECTOR_INDEX_MAX_DIM);
    const maxRows = o.maxRows ?? VECTOR_INDEX_MAX_ROWS;
    checkInteger('maxRows', maxRows, 1, VECTOR_INDEX_MAX_ROWS);
    const dtype = o.dtype ?? 'f32';
    const keepF32 = o.keepF32 ?? true;
    checkBoolean('keepF32', keepF32);
    const metric = metricCode(o.metric);
    const storage = positionOf('dtype', DTYPES, dtype);
    const idType = positionOf<IdType>('idType', ID_TYPES, o.idType);
    try {
      const handle = addon().indexCreate(o.dim, metric, storage, keepF32, idType, maxRows);
      const { dim } = o;
      return new VectorIndex(handle, {
        dim,
        metric: o.metric,
        idType: o.idType,
        dtype,
        keepF32,
        maxRows,
      });
    } catch (error) {
      throw fromAddon(error);
    }
  }

  /**
   * Maps a file that save() wrote. Vectors stay in the file and are shared by every process that maps it; what is
   * written later stays in memory until saved. Replace such a file by saving over its name, never by writing into it.
   *
   * @param o `idType`, when given, must be that of the file; `verify` is 'full' unless told otherwise
   * @throws WAGGLE_NATIVE_FILE when it is missing, foreign, truncated, altered, or of another kind or version
   */
  static async load<T extends IdType = IdType>(
    path: string,
    o: {
      readonly idType?: T | undefined;
      readonly verify?: FileVerification | undefined;
      readonly signal?: AbortSignal | undefined;
    } = {},
  ): Promise<VectorIndex<T>> {
    checkPath(path);
    checkObject('options', o);
    const verify = o.verify ?? 'full';
    positionOf('verify', ['full', 'header'], verify);
    if (o.idType !== undefined) positionOf<IdType>('idType', ID_TYPES, o.idType);
    const found = await runJob((engine) => engine.indexLoad(path, verify === 'full'), o.signal);
    const idType = ID_TYPES[found.idType]!;
    if (o.idType !== undefined && o.idType !== idType) {
      addon().indexClose(found.handle);
      throw nativeError('WAGGLE_NATIVE_FILE', `the ids of ${path} are ${idType}, not ${o.idType}`, {
        remedy: `Load it with the idType ${idType}, or name the file that was meant.`,
      });
    }
    return new VectorIndex<T>(found.handle, {
      dim: found.dim,
      metric: METRICS[found.metric]!,
      dtype: DTYPES[found.storage]!,
      keepF32: found.keepF32,
      idType: idType as T,
      maxRows: found.maxRows,
    });
  }

  /**
   * Sets the vector of each id.
   *
   * @param ids BigUint64Array, or strings of at most 65,535 UTF-8 bytes; borrowed until settled
   * @param vectors float32 [ids.length × dim], row-major; what is beyond is ignored; borrowed until settled
   * @throws WAGGLE_NATIVE_NAN naming a vector that holds NaN or infinity or, for `ip` and `l2`, whose squared length
   *   exceeds 1e36; _SHAPE, also when maxRows would be passed;
   *   _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY, _CLOSED; WAGGLE_ABORTED. O(ids.length · dim)
   */
  async upsert(
    ids: IdsOf<T>,
    vectors: Float32Array,
    o: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    checkObject('options', o);
    await this.#write(
      async () => {
        this.#checkIds('ids', ids, this.maxRows);
        checkArray('vectors', vectors, 'Float32Array', ids.length * this.dim);
        return this.#pack('ids', ids);
      },
      (engine, args) => engine.indexUpsert(this.#handle, ...args, vectors),
      o.signal,
    );
  }

  /**
   * Deletes the ids that are there; their rows take memory until compact().
   * @returns how many were there
   * @throws as upsert
   */
  async delete(
    ids: IdsOf<T>,
    o: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    checkObject('options', o);
    return this.#write(
      async () => {
        this.#checkIds('ids', ids);
        return this.#pack('ids', ids);
      },
      (engine, args) => engine.indexDelete(this.#handle, ...args),
      o.signal,
    );
  }

  /**
   * Rewrites the index without deleted rows, in one segment. Searches go on meanwhile, writes wait. Needs the memory of
   * both until it is done. O(rows · dim)
   */
  async compact(o: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    checkObject('options', o);
    await this.#write(
      async () => undefined,
      (engine) => engine.indexCompact(this.#handle),
      o.signal,
    );
  }

  /**
   * The k best live rows of each query, ties to the lower row: over floats exactly what `topk` returns for them.
   *
   * @returns arrays of [nQueries × k]; O(nQueries · rows · dim)
   * @throws WAGGLE_NATIVE_INVALID_ARGUMENT, also for row numbers of another layout or out of range; _SHAPE, _DTYPE,
   *   _DETACHED, _NAN, _LEASED, _BUSY, _OUT_OF_MEMORY, _CLOSED; WAGGLE_ABORTED
   */
  async search(o: VectorIndexQuery<T>): Promise<VectorIndexResult<T>> {
    checkObject('options', o, SEARCH_OPTIONS);
    checkInteger('nQueries', o.nQueries, 0, VECTOR_INDEX_MAX_ROWS);
    checkInteger('k', o.k, 1, TOPK_MAX_K);
    const nAnswers = o.nQueries * o.k;
    checkInteger('nQueries × k', nAnswers, 0, VECTOR_INDEX_MAX_ROWS);
    checkArray('queries', o.queries, 'Float32Array', o.nQueries * this.dim);
    const filter = this.#checkFilter(o.filter);
    return this.#track(async () => {
      const filterIds =
        filter.ids === undefined ? undefined : await this.#pack('filter.ids', filter.ids);
      const scores = new Float32Array(nAnswers);
      const rows = new Int32Array(nAnswers);
      const nInDoubt = new Int32Array(o.nQueries);
      const numbers = this.idType === 'uint64' ? new BigUint64Array(nAnswers) : undefined;
      const answer = await runJob(
        (engine) =>
          engine.indexSearch(
            this.#handle,
            o.queries,
            o.nQueries,
            o.k,
            scores,
            rows,
            nInDoubt,
            numbers,
            filter.bitmap,
            filter.rows,
            filter.rows?.length ?? 0,
            filter.layout ?? 0,
            filterIds !== undefined,
            ...(filterIds ?? NO_IDS),
          ),
        o.signal,
      );
      const ids = numbers ?? new StringIds(answer.idBytes!, answer.idEnds!, rows);
      const { certified, version, layout } = answer;
      return {
        ids: ids as VectorIndexResult<T>['ids'],
        scores,
        rows,
        certified,
        nInDoubt,
        version,
        layout,
      };
    });
  }

  /**
   * Writes the current version to `path`: a temporary file beside it, made durable, then renamed over it. On failure the
   * old file is untouched and nothing else is left.
   * @throws WAGGLE_NATIVE_FILE naming the system's reason; _CLOSED; WAGGLE_ABORTED
   */
  async save(path: string, o: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    checkObject('options', o);
    checkPath(path);
    await this.#track(() => runJob((engine) => engine.indexSave(this.#handle, path), o.signal));
  }

  /**
   * Rows, version and memory of the current version, in microseconds.
   * @throws WAGGLE_NATIVE_CLOSED
   */
  stats(): VectorIndexStats {
    this.#checkOpen();
    const s = addon().indexStats(this.#handle);
    const { vectors, encoded, ids, idMap, bitmaps, mapped, reserved } = s;
    const total = vectors + encoded + ids + idMap + bitmaps;
    return {
      rows: { live: s.live, deleted: s.deleted },
      segments: s.segments,
      version: s.version,
      layout: s.layout,
      bytes: { vectors, encoded, ids, idMap, bitmaps, total, mapped, reserved },
    };
  }

  /** Refuses new calls at once, waits for those under way, then gives the memory back. A second call changes nothing. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      await Promise.allSettled(this.#running);
      addon().indexClose(this.#handle);
    })();
    return this.#closed;
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) {
      throw nativeError('WAGGLE_NATIVE_CLOSED', 'the index is closed');
    }
  }

  #track<R>(run: () => Promise<R>): Promise<R> {
    this.#checkOpen();
    const running = run();
    this.#running.add(running);
    const done = () => void this.#running.delete(running);
    running.then(done, done);
    return running;
  }

  /** Prepares at once, then waits for the writes before it or an abort. Native code would wait on a thread of the pool instead. */
  #write<Args, R>(
    prepare: () => Promise<Args>,
    submit: (engine: ReturnType<typeof addon>, args: Args) => SubmittedJob<R>,
    callersSignal: AbortSignal | undefined,
  ): Promise<R> {
    const signal = checkSignal(callersSignal);
    throwIfAborted(signal);
    if (this.#running.size >= MAX_JOBS_IN_FLIGHT) {
      throw nativeError('WAGGLE_NATIVE_BUSY', `${MAX_JOBS_IN_FLIGHT} calls are in flight already`, {
        details: { limit: MAX_JOBS_IN_FLIGHT },
      });
    }
    return this.#track(() => {
      const before = this.#lastWrite;
      const prepared = prepare();
      const turn = (async () => {
        const args = await prepared;
        await waitForTurn(before, signal);
        const result = await runJob((engine) => submit(engine, args), signal);
        // Tells the collector how much memory is behind the handle by now.
        addon().indexStats(this.#handle);
        return result;
      })();
      // Both: a turn that fails while it prepares, or is aborted, does not wait for the one before.
      // Their results are dropped: the chain lives as long as the index.
      this.#lastWrite = Promise.allSettled([before, turn]).then(() => undefined);
      return turn;
    });
  }

  #checkIds(name: string, ids: unknown, most = VECTOR_INDEX_MAX_ROWS): void {
    if (this.idType === 'uint64') {
      checkArray(name, ids, 'BigUint64Array', 0);
    } else if (!Array.isArray(ids)) {
      throw nativeError('WAGGLE_NATIVE_DTYPE', `${name} must be an array of strings`, {
        details: { argument: name },
      });
    }
    checkInteger(`${name}.length`, (ids as { length: number }).length, 0, most);
  }

  async #pack(name: string, ids: IdsOf<T>): Promise<IdArguments> {
    if (this.idType === 'uint64') return [ids.length, ids as BigUint64Array, undefined, undefined];
    const { bytes, ends }: PackedIds = await packIds(name, ids as readonly string[]);
    return [ends.length, undefined, bytes, ends];
  }

  #checkFilter(filter: VectorIndexFilter<T> | undefined): {
    ids?: IdsOf<T>;
    rows?: Int32Array;
    bitmap?: Uint8Array;
    layout?: number | undefined;
  } {
    if (filter === undefined) return {};
    checkObject('filter', filter, FILTERS);
    const { ids, rows, bitmap, layout } = filter as {
      ids?: IdsOf<T>;
      rows?: Int32Array;
      bitmap?: Uint8Array;
      layout?: number;
    };
    if ([ids, rows, bitmap].filter((given) => given !== undefined).length !== 1) {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        'filter must have one of ids, rows and bitmap',
        { details: { argument: 'filter' } },
      );
    }
    if (layout !== undefined) checkInteger('filter.layout', layout, 1, Number.MAX_SAFE_INTEGER);
    if (ids !== undefined) {
      this.#checkIds('filter.ids', ids);
      return { ids };
    }
    if (rows !== undefined) {
      checkArray('filter.rows', rows, 'Int32Array', 0);
      return { rows, layout };
    }
    checkArray('filter.bitmap', bitmap, 'Uint8Array', 0);
    return { bitmap, layout };
  }
}
