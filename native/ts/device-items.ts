import { checkArray, checkCounted, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { fromAddon, nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { addon, type NativeHandle } from './loader.js';

export interface DeviceItemsInput {
  readonly nItems: number;
  /** float32 [nItems × dim]; borrowed until settled, copied to the device. */
  readonly embeddings?: Float32Array | undefined;
  readonly dim?: number | undefined;
  /** float32 [nItems × nItemFeatures]; NaN = missing; as `embeddings`. */
  readonly itemFeatures?: Float32Array | undefined;
  readonly nItemFeatures?: number | undefined;
}

/**
 * Items of `rankBatch` that stay on the GPU between calls: what is large of them and seldom changes. A call that names
 * them as `resident` still gets the arrays they were made of, which the CPU reads where it ranks instead; their values
 * must be the same.
 */
export class DeviceItems {
  readonly nItems: number;
  readonly dim: number;
  readonly nItemFeatures: number;
  /** Memory they hold on the device. */
  readonly deviceBytes: number;
  readonly #handle: NativeHandle;
  #closed = false;

  private constructor(o: DeviceItemsInput, handle: NativeHandle, deviceBytes: number) {
    this.nItems = o.nItems;
    this.dim = o.dim ?? 0;
    this.nItemFeatures = o.nItemFeatures ?? 0;
    this.deviceBytes = deviceBytes;
    this.#handle = handle;
  }

  /**
   * Copies the items to the device. O(nItems · (dim + nItemFeatures)), bound by the bus.
   * @throws WAGGLE_NATIVE_BACKEND without a GPU that ranks (`backendInfo()` says why: go on without); _OUT_OF_MEMORY when
   *   they do not fit; _INVALID_ARGUMENT, _SHAPE, _DTYPE; WAGGLE_ABORTED
   */
  static async open(
    o: DeviceItemsInput & { readonly signal?: AbortSignal | undefined },
  ): Promise<DeviceItems> {
    checkObject('options', o);
    const { nItems, dim = 0, nItemFeatures = 0 } = o;
    checkInteger('nItems', nItems, 0, MAX_ROWS);
    checkInteger('dim', dim, 0, MAX_ROWS);
    checkInteger('nItemFeatures', nItemFeatures, 0, MAX_ROWS);
    checkCounted('embeddings', o.embeddings, 'dim', o.dim);
    checkCounted('itemFeatures', o.itemFeatures, 'nItemFeatures', o.nItemFeatures);
    if (dim > 0) checkArray('embeddings', o.embeddings, 'Float32Array', nItems * dim);
    if (nItemFeatures > 0) {
      checkArray('itemFeatures', o.itemFeatures, 'Float32Array', nItems * nItemFeatures);
    }
    const opened = await runJob(
      (engine) => engine.deviceItemsOpen(nItems, o.embeddings, dim, o.itemFeatures, nItemFeatures),
      o.signal,
    );
    return new DeviceItems(o, opened.handle, opened.deviceBytes);
  }

  /** @internal for `rankBatch` */
  borrow(): NativeHandle {
    if (this.#closed) throw nativeError('WAGGLE_NATIVE_CLOSED', 'the items are closed');
    return this.#handle;
  }

  /** Refuses new calls; the device's memory is free when the last running one ends. A second call does nothing more. */
  close(): void {
    this.#closed = true;
    try {
      addon().deviceItemsClose(this.#handle);
    } catch (error) {
      throw fromAddon(error);
    }
  }
}
