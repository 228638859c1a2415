import { optionNames } from '@waggle/core';
import { checkArray, checkInteger, checkObject, MAX_ROWS, positionOf } from './arrays.js';
import { fromAddon, nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { addon, type NativeHandle } from './loader.js';
import { checkFilter, type Metric, metricCode, TOPK_MAX_K } from './topk.js';

/** What the device scans; answers are exact whatever it is, as long as the f32 rows are kept beside it. */
export type DeviceDtype = 'f32' | 'f16' | 'bf16' | 'int8';

const DTYPES: readonly DeviceDtype[] = ['f32', 'f16', 'bf16', 'int8'];

export interface DeviceMatrixInput {
  /** float32 [nRows × dim], row-major, finite; borrowed until settled, copied to the device. */
  readonly matrix: Float32Array;
  readonly nRows: number;
  readonly dim: number;
  /** Default f16: half the traffic of f32, a quarter with int8. */
  readonly dtype?: DeviceDtype | undefined;
  /** Default true. false gives up the exact rows: 4·dim bytes less per row, answers approximate. */
  readonly keepExact?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface DeviceTopkInput {
  /** float32 [nQueries × dim], row-major; borrowed until settled. */
  readonly queries: Float32Array;
  readonly nQueries: number;
  /** 1 … 2,048. */
  readonly k: number;
  readonly metric: Metric;
  /** As in topk: a bitmap for all queries, one per query, or row numbers; at most one of the three. */
  readonly filter?: Uint8Array | undefined;
  readonly filters?: Uint8Array | undefined;
  readonly allowRows?: Int32Array | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface DeviceTopkResult {
  /** float32 [nQueries × k], best first; −Infinity pads. */
  readonly scores: Float32Array;
  /** int32 [nQueries × k]; −1 pads. */
  readonly rows: Int32Array;
  /** true: exact rows were kept, so the answer is that of f32. */
  readonly certified: boolean;
  /** Without exact rows: how many rows might belong to an answer and are not in it. */
  readonly nInDoubt: number;
  /** Rows that the scan could not exclude and that were looked at closely, over the device's batch. */
  readonly nRescored: number;
}

const OPEN_OPTIONS = optionNames<DeviceMatrixInput>({
  matrix: true,
  nRows: true,
  dim: true,
  dtype: true,
  keepExact: true,
  signal: true,
});
const TOPK_OPTIONS = optionNames<DeviceTopkInput>({
  queries: true,
  nQueries: true,
  k: true,
  metric: true,
  filter: true,
  filters: true,
  allowRows: true,
  signal: true,
});

/**
 * A matrix that stays on the GPU between searches. Callers may share it: searches that wait together (same k and metric,
 * no filter) run as one batch.
 */
export class DeviceMatrix {
  readonly nRows: number;
  readonly dim: number;
  readonly dtype: DeviceDtype;
  readonly exact: boolean;
  /** Memory it holds on the device. */
  readonly deviceBytes: number;
  readonly #handle: NativeHandle;
  readonly #running = new Set<Promise<unknown>>();
  #closed = false;

  private constructor(o: DeviceMatrixInput, handle: NativeHandle, deviceBytes: number) {
    this.nRows = o.nRows;
    this.dim = o.dim;
    this.dtype = o.dtype ?? 'f16';
    this.exact = o.keepExact ?? true;
    this.deviceBytes = deviceBytes;
    this.#handle = handle;
  }

  /**
   * Copies the rows to the device and encodes them there. O(nRows · dim), bound by the bus.
   * @throws WAGGLE_NATIVE_BACKEND without a usable GPU (`backendInfo().rejected` says why); _NAN naming a bad row;
   *   _OUT_OF_MEMORY when it does not fit; _INVALID_ARGUMENT, _SHAPE, _DTYPE; WAGGLE_ABORTED
   */
  static async open(o: DeviceMatrixInput): Promise<DeviceMatrix> {
    checkObject('options', o, OPEN_OPTIONS);
    checkInteger('nRows', o.nRows, 0, MAX_ROWS);
    checkInteger('dim', o.dim, 1, MAX_ROWS);
    checkArray('matrix', o.matrix, 'Float32Array', o.nRows * o.dim);
    const dtype = positionOf('dtype', DTYPES, o.dtype ?? 'f16');
    const opened = await runJob(
      (engine) => engine.deviceMatrixOpen(o.matrix, o.nRows, o.dim, dtype, o.keepExact ?? true),
      o.signal,
    );
    return new DeviceMatrix(o, opened.handle, opened.deviceBytes);
  }

  /**
   * The k rows most similar to each query, ties to the lower row. With exact rows each score is the double-precision
   * value rounded once.
   * @throws as topk; WAGGLE_NATIVE_CLOSED after close(); _BACKEND when the device fails (go on with `topk` on the CPU)
   */
  async topk(o: DeviceTopkInput): Promise<DeviceTopkResult> {
    checkObject('options', o, TOPK_OPTIONS);
    checkInteger('nQueries', o.nQueries, 0, MAX_ROWS);
    checkInteger('k', o.k, 1, TOPK_MAX_K);
    const metric = metricCode(o.metric);
    checkFilter({ ...o, nRows: this.nRows });
    if (this.#closed) throw nativeError('WAGGLE_NATIVE_CLOSED', 'the device matrix is closed');
    checkArray('queries', o.queries, 'Float32Array', o.nQueries * this.dim);
    const nAnswers = o.nQueries * o.k;
    checkInteger('nQueries × k', nAnswers, 0, MAX_ROWS);
    const scores = new Float32Array(nAnswers);
    const rows = new Int32Array(nAnswers);
    const job = runJob(
      (engine) =>
        engine.deviceMatrixTopk(
          this.#handle,
          o.queries,
          o.nQueries,
          o.k,
          metric,
          o.filter,
          o.filters,
          o.allowRows,
          scores,
          rows,
        ),
      o.signal,
    );
    this.#running.add(job);
    try {
      const { nInDoubt, nRescored } = await job;
      return { scores, rows, certified: this.exact, nInDoubt, nRescored };
    } finally {
      this.#running.delete(job);
    }
  }

  /** Refuses new searches, waits for running ones and frees the device's memory. A second call does nothing more. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#running);
    try {
      addon().deviceMatrixClose(this.#handle);
    } catch (error) {
      throw fromAddon(error);
    }
  }
}
