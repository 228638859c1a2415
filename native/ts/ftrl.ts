import { coreError } from '@waggle/core';
import { checkInteger, checkObject } from './arrays.js';
import { runJob } from './jobs.js';
import { addon, type NativeHandle, type RawFtrl } from './loader.js';
import { withProgress } from './progress.js';
import {
  checkAbove,
  checkPath,
  rowsArguments,
  SPARSE_MAX_FEATURES,
  type SparseRows,
  type SparseTargets,
  Turns,
  targetsArguments,
} from './sparse.js';

export interface FtrlOptions {
  /** Features or hash buckets, 1 … 2²⁸; 16 bytes each, where something was learned. */
  readonly nFeatures: number;
  /** Learning rate, 1e-12 … 1e12; default 0.1. */
  readonly alpha: number;
  /** Smooths the rate of rare features, 1e-12 … 1e12; default 1. */
  readonly beta: number;
  /** λ₁, ≥ 0; default 0. */
  readonly l1: number;
  /** λ₂, ≥ 0; default 0. */
  readonly l2: number;
  /** A coordinate of its own without penalties; default true. */
  readonly intercept: boolean;
}

export interface FtrlLearnInput extends SparseRows, SparseTargets {
  /** float64 [nRows] to fill with each row's probability before it was learned; leased until settled. */
  readonly predictions?: Float64Array | undefined;
  /** Called now and then with the part done, 0 … 1; throwing ends the learning there, with that error. */
  readonly onProgress?: ((done: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FtrlLearned {
  readonly nRows: number;
  /** Σ weights · trials. */
  readonly totalWeight: number;
  /** Σ w (−s log p − (t − s) log(1 − p)), p before its row was learned: progressive validation. */
  readonly loss: number;
  /** loss / totalWeight; NaN without weight. */
  readonly meanLoss: number;
}

export interface FtrlStats extends FtrlLearned {
  readonly options: FtrlOptions;
  /** Features that ever had a gradient. */
  readonly nTouched: number;
  /** Features whose weight is not 0. */
  readonly nNonZero: number;
  /** Native memory, most of it untouched until used. */
  readonly bytes: number;
}

export interface SparseWeights {
  /** int32, ascending: every feature whose weight is not 0. */
  readonly indices: Int32Array;
  /** float64, as many. */
  readonly values: Float64Array;
  readonly intercept: number;
}

export interface SparsePredictInput extends SparseRows {
  /** float64 [nRows], added to the linear predictor. */
  readonly offset?: Float64Array | undefined;
  /** Array to fill instead of a fresh one; leased until settled. */
  readonly out?: Float64Array | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * FTRL-proximal logistic regression for streams: McMahan et al., "Ad Click Prediction: a View from the Trenches" (KDD
 * 2013), Algorithm 1, on binomial counts, with a learning rate per coordinate, in double.
 *
 * Rows are learned strictly one after the other: the same bits however a stream is cut into batches, and whether or
 * not it was saved and loaded in between. Calls on one model run one after the other in the order they were made.
 */
export class Ftrl {
  readonly options: FtrlOptions;
  readonly #handle: NativeHandle;
  readonly #turns = new Turns('FTRL model');

  private constructor({ handle, ...options }: RawFtrl) {
    this.#handle = handle;
    this.options = options;
  }

  /**
   * A model that knows nothing: every probability is ½.
   * @throws WAGGLE_NATIVE_INVALID_ARGUMENT, _NAN, _BUSY, _OUT_OF_MEMORY
   */
  static async create(
    o: Pick<FtrlOptions, 'nFeatures'> & Partial<Omit<FtrlOptions, 'nFeatures'>>,
  ): Promise<Ftrl> {
    checkObject('options', o);
    const { nFeatures, alpha = 0.1, beta = 1, l1 = 0, l2 = 0, intercept = true } = o;
    checkInteger('nFeatures', nFeatures, 1, SPARSE_MAX_FEATURES);
    checkAbove('alpha', alpha, 1e-12, 1e12);
    checkAbove('beta', beta, 1e-12, 1e12);
    checkAbove('l1', l1, 0, Number.MAX_VALUE);
    checkAbove('l2', l2, 0, Number.MAX_VALUE);
    return new Ftrl(
      await runJob(
        (engine) => engine.ftrlCreate(nFeatures, alpha, beta, l1, l2, intercept),
        undefined,
      ),
    );
  }

  /**
   * Reads what {@link save} wrote, after checking every byte of it.
   * @throws WAGGLE_NATIVE_FILE saying what is wrong with the file; WAGGLE_NATIVE_INVALID_ARGUMENT, _BUSY,
   *   _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  static async load(
    path: string,
    o: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Ftrl> {
    checkPath(path);
    checkObject('options', o);
    return new Ftrl(await runJob((engine) => engine.ftrlLoad(path), o.signal));
  }

  /**
   * Learns rows in order, on one thread. Nothing is learned when an input is wrong. Aborted, it stops between two rows:
   * `details.rowsLearned` of the error says after how many, and going on from there gives the bits of never stopping.
   *
   * @param o shapes as in {@link FtrlLearnInput}; `signal` is polled every 4,096 rows
   * @returns the loss of each row before it was learned, summed; O(entries)
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_NAN, _INVALID_ARGUMENT naming the first row that is wrong; _SHAPE,
   *   _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  async learn(o: FtrlLearnInput): Promise<FtrlLearned> {
    this.#turns.checkOpen();
    checkObject('options', o);
    const rows = rowsArguments(o);
    const targets = targetsArguments(o, o.nRows);
    const { predictions, onProgress } = o;
    const progress = new Float64Array(1);
    const summary = new Float64Array(3);
    const look = onProgress === undefined ? undefined : () => onProgress(progress[0]!);
    try {
      await withProgress(look, o.signal, (signal) =>
        this.#turns.take(
          () =>
            runJob(
              (engine) =>
                engine.ftrlLearn(this.#handle, ...rows, ...targets, predictions, progress, summary),
              signal,
            ),
          signal,
        ),
      );
    } catch (error) {
      if ((error as { code?: unknown } | undefined)?.code !== 'WAGGLE_ABORTED') throw error;
      throw coreError('WAGGLE_ABORTED', `learning was aborted after ${summary[0]} rows`, {
        cause: error,
        details: { rowsLearned: summary[0]! },
      });
    }
    onProgress?.(1);
    return learned(summary[0]!, summary[1]!, summary[2]!);
  }

  /**
   * @returns float64 [nRows] probabilities, the same alone and in any batch; O(entries) on all threads
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_NAN, _INVALID_ARGUMENT naming the first row that is wrong; _SHAPE,
   *   _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  async predict(o: SparsePredictInput): Promise<Float64Array> {
    this.#turns.checkOpen();
    checkObject('options', o);
    const rows = rowsArguments(o);
    const out = o.out ?? new Float64Array(o.nRows);
    await this.#turns.take(
      () => runJob((engine) => engine.ftrlPredict(this.#handle, ...rows, o.offset, out), o.signal),
      o.signal,
    );
    return out;
  }

  /**
   * Every weight that is not 0, for serving elsewhere: logit = intercept + Σ weight · value.
   * @throws WAGGLE_NATIVE_CLOSED, _BUSY, _OUT_OF_MEMORY
   */
  async weights(): Promise<SparseWeights> {
    return await this.#turns.take(() =>
      runJob((engine) => engine.ftrlWeights(this.#handle), undefined),
    );
  }

  /** What was learned in all. @throws WAGGLE_NATIVE_CLOSED, _BUSY */
  async stats(): Promise<FtrlStats> {
    const { nRows, totalWeight, loss, ...rest } = await this.#turns.take(() =>
      runJob((engine) => engine.ftrlStats(this.#handle), undefined),
    );
    return { options: this.options, ...learned(nRows, totalWeight, loss), ...rest };
  }

  /**
   * Writes the model to `path`, whole or not at all; the same bytes for the same model. Features that were never seen
   * take no room.
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_FILE naming the system's reason; WAGGLE_NATIVE_INVALID_ARGUMENT, _BUSY;
   *   WAGGLE_ABORTED
   */
  async save(path: string, o: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    this.#turns.checkOpen();
    checkPath(path);
    checkObject('options', o);
    await this.#turns.take(
      () => runJob((engine) => engine.ftrlSave(this.#handle, path), o.signal),
      o.signal,
    );
  }

  /** Refuses new work at once, waits for what was asked for before, then gives the memory back. Idempotent. */
  close(): Promise<void> {
    return this.#turns.close(() => addon().ftrlClose(this.#handle));
  }
}

function learned(nRows: number, totalWeight: number, loss: number): FtrlLearned {
  return { nRows, totalWeight, loss, meanLoss: loss / totalWeight };
}
