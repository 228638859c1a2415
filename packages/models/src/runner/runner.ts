import type { ModelSignature, TensorMap, TensorValue } from './tensor.js';

/** A model to load: a file or its bytes. */
export interface ModelSource {
  /** Names the model in `run`. */
  readonly id: string;
  readonly path?: string;
  readonly bytes?: Uint8Array;
  /** Checked in every thread that loads the model. */
  readonly sha256?: string;
  /** What the caller was written for; a model that declares something else is refused. */
  readonly expected?: Partial<ModelSignature>;
  /** False where rows of one run influence each other (dynamic quantisation, say). @default true */
  readonly batch?: boolean;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  /** Hands the input buffers over (they are detached) instead of copying them. */
  readonly transferInputs?: boolean;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Buffers inside the payload that move instead of being copied. */
  readonly transfer?: readonly ArrayBuffer[];
}

/** A function inside a worker: a named export of a plain JavaScript module, by file URL. */
export interface HookReference {
  readonly module: URL;
  readonly name: string;
}

export interface RunnerStats {
  readonly workers: number;
  readonly threadsPerSession: number;
  /** Requests that wait. */
  readonly queued: number;
  /** Tasks inside workers. */
  readonly running: number;
  /** Since the runner was made. */
  readonly runs: number;
  readonly batches: number;
  readonly rows: number;
}

/** Runs models. Every rejection is a WaggleError; its `code` is stable. */
export interface Runner {
  /**
   * Loads a model once, checks it, and remembers it under `id`; loading equal content again is a no-op.
   * @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_INVALID, WAGGLE_MODEL_INPUT_MISMATCH
   */
  load(source: ModelSource): Promise<ModelSignature>;
  /**
   * @param inputs one tensor per declared input; borrowed until settled
   * @returns one tensor per declared output, owned by the caller
   * @throws WAGGLE_MODEL_NOT_FOUND (never loaded), WAGGLE_MODEL_INPUT_MISMATCH, WAGGLE_MODEL_RUN_FAILED,
   *   WAGGLE_RUNNER_QUEUE_FULL, WAGGLE_RUNNER_CLOSED, WAGGLE_ABORTED
   */
  run(
    modelId: string,
    inputs: TensorMap,
    options?: RunOptions,
  ): Promise<Record<string, TensorValue>>;
  /**
   * Runs a hook with the sessions of one worker; its queue is bounded too.
   * @throws WAGGLE_RUNNER_HOOK_FAILED, or the WaggleError that the hook threw
   */
  call<T>(hook: HookReference, payload: unknown, options?: CallOptions): Promise<T>;
  stats(): RunnerStats;
  /** Refuses new work, waits for what is under way, ends the threads. Safe to repeat. */
  close(): Promise<void>;
}
