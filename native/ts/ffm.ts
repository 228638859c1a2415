import { checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { nativeError } from './errors.js';
import type { SparsePredictInput } from './ftrl.js';
import { runJob } from './jobs.js';
import { addon, type NativeHandle, type RawFfm } from './loader.js';
import { withProgress } from './progress.js';
import {
  checkAbove,
  checkPath,
  rowsArguments,
  SPARSE_MAX_FEATURES,
  SPARSE_MAX_FIELDS,
  type SparseRows,
  type SparseTargets,
  Turns,
  targetsArguments,
} from './sparse.js';

export const FFM_MAX_K = 128;

export interface FfmOptions {
  /** Features or hash buckets, 1 … 2²⁸; each takes 8 · nFields · k bytes (k rounded up to 4, 8 or a multiple of 16). */
  readonly nFeatures: number;
  /** 1 … 1,024. */
  readonly nFields: number;
  /** Numbers per feature and field, 1 … 128; default 4. */
  readonly k: number;
  /** Of AdaGrad; default 0.1. */
  readonly learningRate: number;
  /** What AdaGrad's sums of squared gradients start with, 1e-12 … 1e12; default 0.1. */
  readonly accumulator: number;
  /**
   * λ of ½ λ w² on the interaction weights that a row touches; default 2e-3. A good one is about what chance alone makes
   * of the widest pair of fields, with A and B values in N rows of rate p: √(p (1 − p) / N) · (√A + √B), the largest
   * singular value of so large a matrix of noise (Bai & Yin 1993). Weaker, and interactions of noise are learned, the
   * more the more fields there are; much stronger, and none are. With `normalize`, that divided by the entries of a row.
   */
  readonly l2: number;
  /** The same on the linear weights; default 1e-5. */
  readonly linearL2: number;
  /** Default false. True: each row is divided by its length first (instance-wise), for rows that differ in length. */
  readonly normalize: boolean;
  /** Default true: an intercept and a weight per feature beside the interactions. */
  readonly linear: boolean;
  /** Of the first weights and the order of rows; default 1. */
  readonly seed: number;
}

/**
 * `ordered`: one row after the other on one thread; the same bits for a seed on one machine.
 * `hogwild`: all threads write the same weights without locks (Niu et al. 2011). Faster by about the number of cores
 * where rows share few features, and **not deterministic**: every run gives slightly different weights.
 */
export type FfmSchedule = 'ordered' | 'hogwild';

const SCHEDULES: Readonly<Record<FfmSchedule, number>> = { ordered: 0, hogwild: 1 };

export interface FfmFitInput extends SparseRows, SparseTargets {
  /** Passes over the rows; the most of them with `patience`. */
  readonly epochs: number;
  /** Default true: rows in a new order every epoch. */
  readonly shuffle?: boolean | undefined;
  /** Default `ordered`. */
  readonly schedule?: FfmSchedule | undefined;
  /** Later rows, to keep the best epoch's weights by. */
  readonly validation?: (SparseRows & SparseTargets) | undefined;
  /** Stops after so many epochs without a better validation loss; default 0: never. */
  readonly patience?: number | undefined;
  /** Called now and then with the epochs done, fractions included; throwing ends the fit with that error. */
  readonly onProgress?: ((epochs: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FfmFitResult {
  /** Run by this call. */
  readonly epochs: number;
  /** Whose weights were kept, from 1; the last one without validation. */
  readonly bestEpoch: number;
  /** float64 [epochs]: mean log-loss per trial, of each row before it was learned. */
  readonly trainLoss: Float64Array;
  /** float64 [epochs]; empty without validation. */
  readonly validationLoss: Float64Array;
}

export interface FfmWeights {
  readonly intercept: number;
  /** float32 [nFeatures]. */
  readonly linear: Float32Array;
  /** float32 [nFeatures × nFields × k]. */
  readonly interactions: Float32Array;
}

/**
 * Field-aware factorisation machine: Juan et al., "Field-aware Factorization Machines for CTR Prediction" (RecSys
 * 2016), on binomial counts. For what no linear model can say, such as which publication suits which campaign:
 *
 * logit = b + Σ wⱼ xⱼ + Σ over pairs of entries xⱼ xₗ ⟨v of j for the field of l, v of l for the field of j⟩
 *
 * Weights are float32, sums of pairs float64. Calls on one model run one after the other in the order they were made.
 */
export class Ffm {
  readonly options: FfmOptions;
  readonly #handle: NativeHandle;
  readonly #turns = new Turns('field-aware factorisation machine');

  private constructor({ handle, ...options }: RawFfm) {
    this.#handle = handle;
    this.options = options;
  }

  /**
   * A model of small random weights.
   * @throws WAGGLE_NATIVE_INVALID_ARGUMENT, _NAN, _BUSY, _OUT_OF_MEMORY
   */
  static async create(
    o: Pick<FfmOptions, 'nFeatures' | 'nFields'> &
      Partial<Omit<FfmOptions, 'nFeatures' | 'nFields'>>,
  ): Promise<Ffm> {
    checkObject('options', o);
    const { nFeatures, nFields, k = 4, learningRate = 0.1, accumulator = 0.1, seed = 1 } = o;
    const { l2 = 2e-3, linearL2 = 1e-5, normalize = false, linear = true } = o;
    checkInteger('nFeatures', nFeatures, 1, SPARSE_MAX_FEATURES);
    checkInteger('nFields', nFields, 1, SPARSE_MAX_FIELDS);
    checkInteger('k', k, 1, FFM_MAX_K);
    checkAbove('learningRate', learningRate, Number.MIN_VALUE, 1e6);
    checkAbove('accumulator', accumulator, 1e-12, 1e12);
    checkAbove('l2', l2, 0, 1e6);
    checkAbove('linearL2', linearL2, 0, 1e6);
    checkInteger('seed', seed, 0, Number.MAX_SAFE_INTEGER);
    return new Ffm(
      await runJob(
        (engine) =>
          engine.ffmCreate(
            nFeatures,
            nFields,
            k,
            learningRate,
            accumulator,
            l2,
            linearL2,
            normalize,
            linear,
            seed,
          ),
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
  ): Promise<Ffm> {
    checkPath(path);
    checkObject('options', o);
    return new Ffm(await runJob((engine) => engine.ffmLoad(path), o.signal));
  }

  /**
   * AdaGrad over `epochs` passes. May be called again: 2 epochs, `save`, `load` and 3 more give the bits of 5. With
   * validation rows the weights of the best epoch are kept. When it fails or is aborted, the model is what it was
   * before, for which it keeps a copy (two with validation rows).
   *
   * @param o shapes as in {@link FfmFitInput}; `signal` is polled every 1,024 rows
   * @returns losses by epoch; O(epochs · Σ entries of a row² · k)
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_NAN, _INVALID_ARGUMENT naming the first row that is wrong, or that the
   *   fit diverged; _SHAPE, _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  async fit(o: FfmFitInput): Promise<FfmFitResult> {
    this.#turns.checkOpen();
    checkObject('options', o);
    const { epochs, shuffle = true, schedule = 'ordered', patience = 0, validation } = o;
    checkInteger('nRows', o.nRows, 1, MAX_ROWS);
    checkInteger('epochs', epochs, 1, 100_000);
    checkInteger('patience', patience, 0, validation === undefined ? 0 : 100_000);
    if (!Object.hasOwn(SCHEDULES, schedule)) {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        `schedule is ${String(schedule)}; it must be ordered or hogwild`,
      );
    }
    const rows = rowsArguments(o);
    const targets = targetsArguments(o, o.nRows);
    if (validation !== undefined) checkInteger('validation nRows', validation.nRows, 1, MAX_ROWS);
    const held =
      validation === undefined
        ? NOTHING
        : ([
            ...rowsArguments(validation, 'validation '),
            ...targetsArguments(validation, validation.nRows, 'validation '),
          ] as const);
    const trainLoss = new Float64Array(epochs);
    const validationLoss = new Float64Array(validation === undefined ? 0 : epochs);
    const progress = new Float64Array(2);
    const { onProgress } = o;
    const look =
      onProgress === undefined ? undefined : () => onProgress(progress[0]! + progress[1]!);
    const done = await withProgress(look, o.signal, (signal) =>
      this.#turns.take(
        () =>
          runJob(
            (engine) =>
              engine.ffmFit(
                this.#handle,
                ...rows,
                ...targets,
                epochs,
                shuffle,
                SCHEDULES[schedule],
                patience,
                trainLoss,
                validationLoss,
                progress,
                ...held,
              ),
            signal,
          ),
        signal,
      ),
    );
    onProgress?.(done.epochs);
    return {
      ...done,
      trainLoss: trainLoss.slice(0, done.epochs),
      validationLoss: validationLoss.slice(0, done.epochs),
    };
  }

  /**
   * @returns float64 [nRows] probabilities, the same alone and in any batch; O(Σ entries of a row² · k) on all threads
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_NAN, _INVALID_ARGUMENT naming the first row that is wrong; _SHAPE,
   *   _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  async predict(o: SparsePredictInput): Promise<Float64Array> {
    this.#turns.checkOpen();
    checkObject('options', o);
    const rows = rowsArguments(o);
    const out = o.out ?? new Float64Array(o.nRows);
    await this.#turns.take(
      () => runJob((engine) => engine.ffmPredict(this.#handle, ...rows, o.offset, out), o.signal),
      o.signal,
    );
    return out;
  }

  /**
   * All weights, for serving elsewhere; nFeatures · nFields · k floats.
   * @throws WAGGLE_NATIVE_CLOSED, _BUSY, _OUT_OF_MEMORY
   */
  async weights(): Promise<FfmWeights> {
    const { nFeatures, nFields, k } = this.options;
    const linear = new Float32Array(nFeatures);
    const interactions = new Float32Array(nFeatures * nFields * k);
    const intercept = await this.#turns.take(() =>
      runJob((engine) => engine.ffmWeights(this.#handle, linear, interactions), undefined),
    );
    return { intercept, linear, interactions };
  }

  /** `epochs` are those behind the weights, over all calls. @throws WAGGLE_NATIVE_CLOSED, _BUSY */
  async stats(): Promise<{
    readonly options: FfmOptions;
    readonly epochs: number;
    readonly bytes: number;
  }> {
    const stats = await this.#turns.take(() =>
      runJob((engine) => engine.ffmStats(this.#handle), undefined),
    );
    return { options: this.options, ...stats };
  }

  /**
   * Writes the model to `path`, whole or not at all; the same bytes for the same model.
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_FILE naming the system's reason; WAGGLE_NATIVE_INVALID_ARGUMENT, _BUSY;
   *   WAGGLE_ABORTED
   */
  async save(path: string, o: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    this.#turns.checkOpen();
    checkPath(path);
    checkObject('options', o);
    await this.#turns.take(
      () => runJob((engine) => engine.ffmSave(this.#handle, path), o.signal),
      o.signal,
    );
  }

  /** Refuses new work at once, waits for what was asked for before, then gives the memory back. Idempotent. */
  close(): Promise<void> {
    return this.#turns.close(() => addon().ffmClose(this.#handle));
  }
}

const NOTHING = [
  undefined,
  undefined,
  undefined,
  undefined,
  undefined,
  undefined,
  undefined,
  undefined,
  undefined,
] as const;
