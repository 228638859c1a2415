import { readFile } from 'node:fs/promises';
import { optionNames } from '@waggle/core';
import { checkArray, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { fromAddon, nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { addon, type NativeHandle, type RawTrees, type TreesPredictArguments } from './loader.js';
import { type TreesDump, treesDump } from './trees-dump.js';

/**
 * `waggle` is what {@link Trees.toBytes} writes. `onnx`: a whole file with one TreeEnsembleRegressor, -Classifier
 * (ai.onnx.ml 1–3) or TreeEnsemble (5). XGBoost: gbtree and dart. LightGBM: the text of `save_model`.
 */
export type TreesFormat = 'auto' | 'waggle' | 'onnx' | 'xgboost-json' | 'xgboost-ubj' | 'lightgbm';

export type TreesKind = 'regression' | 'classification' | 'ranking';

/** Rows × trees that `predictSync` accepts: under a millisecond with SIMD. */
export const TREES_SYNC_MAX_WORK = 65_536;

const PREDICT_OPTIONS = optionNames<
  TreesPredictInput & { readonly signal?: AbortSignal | undefined }
>({ x: true, nRows: true, nFeatures: true, raw: true, out: true, threads: true, signal: true });
const SHAP_OPTIONS = optionNames<TreesShapInput>({
  x: true,
  nRows: true,
  nFeatures: true,
  background: true,
  out: true,
  threads: true,
  signal: true,
});

const FORMATS: Readonly<Record<TreesFormat, number>> = {
  auto: 0,
  waggle: 1,
  onnx: 2,
  'xgboost-json': 3,
  'xgboost-ubj': 4,
  lightgbm: 5,
};

const KINDS: readonly TreesKind[] = ['regression', 'classification', 'ranking'];

export interface TreesPredictInput {
  /** float32 [nRows × nFeatures], row-major; NaN = missing; what is beyond is ignored; borrowed until settled. */
  readonly x: Float32Array;
  readonly nRows: number;
  /** Features per row of `x`; a number that is not the model's is refused. Default: the model's. */
  readonly nFeatures?: number | undefined;
  /** Scores before the transform, [nRows × nTargets]; default false: [nRows × nOutputs]. */
  readonly raw?: boolean | undefined;
  /** Array to fill instead of a fresh one; leased until settled. */
  readonly out?: Float32Array | undefined;
  /** At most so many of the engine's threads; default all of them. The answer does not depend on it. */
  readonly threads?: number | undefined;
}

export interface TreesShapInput {
  /** float32 [nRows × nFeatures], row-major; NaN = missing; borrowed until settled. */
  readonly x: Float32Array;
  readonly nRows: number;
  /** Features per row of `x`; a number that is not the model's is refused. Default: the model's. */
  readonly nFeatures?: number | undefined;
  /**
   * Rows that stand for "this feature is not known": float32 [nRows × nFeatures], borrowed until settled. Default: the
   * training data, as far as the model tells how it went through the trees ({@link Trees.hasCovers}).
   */
  readonly background?: { readonly x: Float32Array; readonly nRows: number } | undefined;
  /** Array to fill instead of a fresh one; leased until settled. */
  readonly out?: Float64Array | undefined;
  /** At most so many of the engine's threads; default all of them. The answer does not depend on it. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A tree ensemble in native memory. Immutable: any number of predictions may run at once.
 *
 * Decisions are those of the libraries whose formats are read, for every float32 and NaN, boundary values included.
 * Leaves (float32) are summed in float64 in the order of the trees: the same bits at every batch size, thread count
 * and instruction set of one machine; from libraries that add in float32 it differs by at most their rounding,
 * nTrees · 2⁻²⁴ · Σ|leaf|.
 */
export class Trees {
  /** Columns that `x` must have. */
  readonly nFeatures: number;
  /** Scores summed per row. */
  readonly nTargets: number;
  /** Numbers per row that `predict` returns: nTargets, or two for a binary ONNX classifier with one score. */
  readonly nOutputs: number;
  readonly nTrees: number;
  /** Whether the model tells how its training data went through the trees, which {@link Trees.shap} uses. */
  readonly hasCovers: boolean;
  readonly kind: TreesKind;
  /** Native memory held. */
  readonly bytes: number;
  readonly #handle: NativeHandle;
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  private constructor(raw: RawTrees) {
    this.#handle = raw.handle;
    this.nFeatures = raw.nFeatures;
    this.nTargets = raw.nTargets;
    this.nOutputs = raw.nOutputs;
    this.nTrees = raw.nTrees;
    this.hasCovers = raw.hasCovers;
    this.kind = KINDS[raw.kind] ?? 'regression';
    this.bytes = raw.bytes;
  }

  /** @internal what the addon made, with the handle that owns it. */
  static adopt(raw: RawTrees): Trees {
    return new Trees(raw);
  }

  /**
   * Reads a model from a file or from bytes, and lays it out for this machine, off the event loop.
   * @param source path, or Uint8Array (borrowed until settled)
   * @param o.format default `auto`: told from the first bytes
   * @throws WAGGLE_NATIVE_MODEL naming what is malformed or not supported; WAGGLE_NATIVE_FILE when the file cannot be
   *   read; WAGGLE_NATIVE_INVALID_ARGUMENT, _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  static async load(
    source: string | URL | Uint8Array,
    o: {
      readonly format?: TreesFormat | undefined;
      readonly signal?: AbortSignal | undefined;
    } = {},
  ): Promise<Trees> {
    checkObject('options', o);
    const name = o.format ?? 'auto';
    const format = Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined;
    if (format === undefined) {
      throw nativeError(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
        `format is ${String(name)}; it must be one of ${Object.keys(FORMATS).join(', ')}`,
      );
    }
    let bytes: Uint8Array;
    if (typeof source === 'string' || source instanceof URL) {
      try {
        bytes = await readFile(source);
      } catch (error) {
        // The text of a model, passed by mistake, is no path to repeat whole.
        const path = String(source).slice(0, 1_024);
        const reason = (error as NodeJS.ErrnoException).code ?? 'no path of a file';
        throw nativeError('WAGGLE_NATIVE_FILE', `cannot read ${path} (${reason})`, {
          cause: error,
          details: { path },
          remedy: 'Pass the path of a model file, or its content as a Uint8Array.',
        });
      }
    } else {
      checkArray('source', source, 'Uint8Array', 0);
      bytes = source;
    }
    return new Trees(
      await runJob<RawTrees>((engine) => engine.loadTrees(bytes, bytes.length, format), o.signal),
    );
  }

  /**
   * @param o shapes as in {@link TreesPredictInput}; `signal` is polled between tiles of 512 rows
   * @returns float32 [nRows × nOutputs], or [nRows × nTargets] when `raw`; O(nRows · nTrees · depth) or better
   * @throws WAGGLE_NATIVE_CLOSED; WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED before it starts;
   *   _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
   */
  async predict(
    o: TreesPredictInput & { readonly signal?: AbortSignal | undefined },
  ): Promise<Float32Array> {
    const { args, out } = this.#prepare(o);
    await this.during(runJob((engine) => engine.treesPredict(...args), o.signal));
    return out;
  }

  /**
   * {@link Trees.predict} on the calling thread, for microsecond work.
   * @throws as predict; WAGGLE_NATIVE_TOO_LARGE beyond {@link TREES_SYNC_MAX_WORK} rows × trees
   */
  predictSync(o: TreesPredictInput): Float32Array {
    const { args, out } = this.#prepare(o);
    const work = o.nRows * this.nTrees;
    if (work > TREES_SYNC_MAX_WORK) {
      throw nativeError(
        'WAGGLE_NATIVE_TOO_LARGE',
        `predictSync of ${work} rows × trees; the limit is ${TREES_SYNC_MAX_WORK}`,
        { details: { work, limit: TREES_SYNC_MAX_WORK } },
      );
    }
    try {
      addon().treesPredictSync(...args);
    } catch (error) {
      throw fromAddon(error);
    }
    return out;
  }

  /**
   * Shapley values: how much each feature moved each row's score (before the transform) away from the expected one.
   *
   * Path-dependent TreeSHAP by the model's covers (Lundberg et al., Nature Machine Intelligence 2020), what LightGBM
   * calls `pred_contrib` and XGBoost `pred_contribs`; with a `background`, interventional TreeSHAP (ibid., Algorithm 3).
   * Everything is summed in float64: a row's values and the expected score add up to its score to about 1e-15 of the
   * leaves met. The same bits at every batch size and thread count.
   *
   * @param o shapes as in {@link TreesShapInput}; `signal` is polled between trees of a tile of at most 256 rows
   * @returns float64 [nRows × nTargets × (nFeatures + 1)], the expected score last; O(nRows · nodes · min(depth,
   *   nFeatures)), with a background O(nRows · background rows · nodes) at most
   * @throws WAGGLE_NATIVE_MODEL when the model has no covers and no background is given; WAGGLE_NATIVE_CLOSED;
   *   WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED before it starts; _LEASED, _BUSY, _OUT_OF_MEMORY;
   *   WAGGLE_ABORTED
   */
  async shap(o: TreesShapInput): Promise<Float64Array> {
    this.#refuseClosed();
    checkObject('options', o, SHAP_OPTIONS);
    checkInteger('nRows', o.nRows, 0, MAX_ROWS);
    if (o.threads !== undefined) checkInteger('threads', o.threads, 1, 4_096);
    this.#checkFeatures(o.nFeatures);
    checkArray('x', o.x, 'Float32Array', o.nRows * this.nFeatures);
    const { background } = o;
    if (background !== undefined) {
      checkObject('background', background);
      checkInteger('background.nRows', background.nRows, 1, MAX_ROWS);
      const needed = background.nRows * this.nFeatures;
      checkArray('background.x', background.x, 'Float32Array', needed);
    } else if (!this.hasCovers && this.nTrees > 0) {
      throw nativeError(
        'WAGGLE_NATIVE_MODEL',
        'the model does not tell how its training data went through the trees (covers)',
        {
          remedy:
            'Pass a background of some hundred typical rows, or load the model from the file of the library that trained it.',
        },
      );
    }
    const nValues = o.nRows * this.nTargets * (this.nFeatures + 1);
    checkInteger('nRows × nTargets × (nFeatures + 1)', nValues, 0, MAX_ROWS);
    const out = o.out ?? new Float64Array(nValues);
    if (o.out !== undefined) checkArray('out', out, 'Float64Array', nValues);
    await this.during(
      runJob(
        (engine) =>
          engine.treesShap(
            this.#handle,
            o.x,
            o.nRows,
            background?.x,
            background?.nRows ?? 0,
            o.threads ?? 0,
            out,
          ),
        o.signal,
      ),
    );
    return out;
  }

  /** The ensemble's structure as columns, for export and inspection; a copy. @throws WAGGLE_NATIVE_CLOSED */
  dump(): TreesDump {
    this.#refuseClosed();
    try {
      return treesDump(addon().dumpTrees(this.#handle));
    } catch (error) {
      throw fromAddon(error);
    }
  }

  /** The model in our own format: versioned, checksummed, the same bytes for the same model. */
  toBytes(): Uint8Array {
    this.#refuseClosed();
    try {
      return addon().writeTrees(this.#handle);
    } catch (error) {
      throw fromAddon(error);
    }
  }

  /** Refuses new work at once, waits for what runs, gives the memory back. Again: the same promise. */
  close(): Promise<void> {
    this.#closing ??= Promise.allSettled(this.#running).then(() => {
      addon().closeTrees(this.#handle);
    });
    return this.#closing;
  }

  /** @internal for operations that take a model: throws WAGGLE_NATIVE_CLOSED once closed. */
  borrow(): NativeHandle {
    this.#refuseClosed();
    return this.#handle;
  }

  /** @internal keeps `close` waiting for a job that uses the model. */
  async during<T>(job: Promise<T>): Promise<T> {
    this.#running.add(job);
    try {
      return await job;
    } finally {
      this.#running.delete(job);
    }
  }

  #refuseClosed(): void {
    if (this.#closing !== undefined) {
      throw nativeError('WAGGLE_NATIVE_CLOSED', 'the tree ensemble is closed');
    }
  }

  #checkFeatures(nFeatures: number | undefined): void {
    if (nFeatures === undefined || nFeatures === this.nFeatures) return;
    throw nativeError(
      'WAGGLE_NATIVE_SHAPE',
      `nFeatures is ${String(nFeatures)}; the model takes ${this.nFeatures}`,
      {
        details: { argument: 'nFeatures', found: nFeatures, needed: this.nFeatures },
        remedy: 'Pass the features that the model was trained on, in their order.',
      },
    );
  }

  #prepare(o: TreesPredictInput): { args: TreesPredictArguments; out: Float32Array } {
    this.#refuseClosed();
    checkObject('options', o, PREDICT_OPTIONS);
    checkInteger('nRows', o.nRows, 0, MAX_ROWS);
    const threads = o.threads ?? 0;
    if (o.threads !== undefined) checkInteger('threads', o.threads, 1, 4_096);
    const raw = o.raw ?? false;
    this.#checkFeatures(o.nFeatures);
    checkArray('x', o.x, 'Float32Array', o.nRows * this.nFeatures);
    const nValues = o.nRows * (raw ? this.nTargets : this.nOutputs);
    checkInteger('nRows × nOutputs', nValues, 0, MAX_ROWS);
    const out = o.out ?? new Float32Array(nValues);
    if (o.out !== undefined) checkArray('out', out, 'Float32Array', nValues);
    return { args: [this.#handle, o.x, o.nRows, raw, threads, out], out };
  }
}
