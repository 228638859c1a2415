import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import {
  type Clock,
  coreError,
  isWaggleError,
  optionNames,
  reviveError,
  systemClock,
  throwIfAborted,
  unknownOption,
  unknownOptionText,
  type WaggleError,
} from '@waggle/core';
import { Piscina } from 'piscina';
import { modelsError } from '../errors.js';
import type { ModelLocation, RunReply, WorkerReply, WorkerTask } from '../worker/messages.js';
import { ModelTable } from './model-table.js';
import type {
  CallOptions,
  HookReference,
  ModelSource,
  Runner,
  RunnerStats,
  RunOptions,
} from './runner.js';
import {
  buffersOf,
  checkInputs,
  commonRows,
  concatRows,
  copyTensors,
  type ModelSignature,
  shapeKey,
  sliceRows,
  type TensorMap,
  type TensorValue,
} from './tensor.js';
import { compiledFile } from './worker-file.js';

export interface OnnxRunnerOptions {
  /** Worker threads, each with its own sessions. @default cores available to the process, at most 8: every worker holds its own copy of a model */
  readonly workers?: number;
  /** Threads in all; each session gets its share, at least one. @default cores available */
  readonly threads?: number;
  /** Requests that may wait. @default 1024 */
  readonly maxQueue?: number;
  /** Rows that one run may hold together. @default 64 */
  readonly maxBatchRows?: number;
  /** How long a request waits for company while other runs are under way. @default 1 */
  readonly maxWaitMs?: number;
  readonly clock?: Clock;
}

const OPTIONS = optionNames<OnnxRunnerOptions>({
  workers: true,
  threads: true,
  maxQueue: true,
  maxBatchRows: true,
  maxWaitMs: true,
  clock: true,
});

/** The worker's exported function, checked against its file. */
const HANDLER: keyof typeof import('../worker/main.js') = 'handleTask';

type Phase = 'waiting' | 'running' | 'settled';

interface Request {
  readonly kind: 'run' | 'task';
  readonly key: string;
  readonly rows: number;
  readonly task: WorkerTask | undefined;
  readonly model: ModelLocation | undefined;
  readonly inputs: TensorMap | undefined;
  readonly transfer: readonly ArrayBuffer[];
  readonly ownsInputs: boolean;
  readonly sinceMs: number;
  phase: Phase;
  settle(reply: { value: unknown } | { error: WaggleError }): void;
}

/**
 * ONNX models on a pool of worker threads.
 *
 * Batching: a request goes out at once when a worker is free and nothing else runs. While runs are under way,
 * requests for one model whose shapes agree below the first dimension wait for company, until `maxBatchRows`
 * are together or the oldest has waited `maxWaitMs`, and then for a free worker in order of age. Only models
 * whose tensors all have a free first dimension are batched.
 *
 * Cancelling: a waiting request is taken out of the queue. One inside a worker is answered WAGGLE_ABORTED at
 * once and its result thrown away: the runtime cannot stop a run, and ending the thread would cost every
 * other request its session.
 */
export class OnnxRunner implements Runner {
  readonly #pool: Piscina<unknown, WorkerReply<unknown>>;
  readonly #models = new ModelTable();
  readonly #waiting = new Set<Request>();
  readonly #clock: Clock;
  readonly #workers: number;
  readonly #threadsPerSession: number;
  readonly #maxQueue: number;
  readonly #maxBatchRows: number;
  readonly #maxWaitMs: number;
  #running = 0;
  #runs = 0;
  #batches = 0;
  #rows = 0;
  #timer: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;
  #idle: (() => void) | undefined;

  /** @throws WAGGLE_RUNNER_WORKER_MISSING, WAGGLE_INVALID_ARGUMENT */
  constructor(options: OnnxRunnerOptions = {}) {
    const unknown = unknownOption(options, OPTIONS);
    if (unknown !== undefined) {
      throw coreError('WAGGLE_INVALID_ARGUMENT', unknownOptionText(unknown, OPTIONS));
    }
    const cores = availableParallelism();
    this.#workers = whole('workers', options.workers ?? Math.min(cores, 8), 1, 256);
    const threads = whole('threads', options.threads ?? cores, 1, 4096);
    this.#threadsPerSession = Math.max(1, Math.floor(threads / this.#workers));
    this.#maxQueue = whole('maxQueue', options.maxQueue ?? 1024, 1, 10_000_000);
    this.#maxBatchRows = whole('maxBatchRows', options.maxBatchRows ?? 64, 1, 1_000_000);
    this.#maxWaitMs = options.maxWaitMs ?? 1;
    if (!(Number.isFinite(this.#maxWaitMs) && this.#maxWaitMs >= 0)) {
      throw coreError(
        'WAGGLE_INVALID_ARGUMENT',
        `maxWaitMs must be a number of at least 0, not ${this.#maxWaitMs}`,
      );
    }
    this.#clock = options.clock ?? systemClock;
    this.#pool = new Piscina({
      filename: fileURLToPath(compiledFile('../worker/main.js', import.meta.url)),
      name: HANDLER,
      minThreads: 1,
      maxThreads: this.#workers,
      // The runner's own queue is the bounded one; a task is only posted when a worker is free for it.
      maxQueue: this.#workers,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      // Workers read compiled packages whatever conditions the main thread was started with.
      execArgv: [],
      recordTiming: false,
      workerData: { intraOpNumThreads: this.#threadsPerSession },
    });
  }

  async load(source: ModelSource): Promise<ModelSignature> {
    this.#checkOpen();
    return this.#models.load(source, (model) =>
      this.#enqueueTask<ModelSignature>({ kind: 'load', model }, {}),
    );
  }

  async run(
    modelId: string,
    inputs: TensorMap,
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    this.#checkOpen();
    throwIfAborted(options.signal);
    const { location, signature, batch } = this.#models.get(modelId);
    checkInputs(modelId, signature, inputs);
    const rows = batch && isBatchable(signature) ? commonRows(inputs) : undefined;
    // Content is part of the key: after load() of other content under the same id, old and new never mix.
    const key =
      rows === undefined || rows === 0
        ? ''
        : `${modelId}\0${location.sha256 ?? location.path}\0${shapeKey(inputs)}`;
    return this.#enqueue<Record<string, TensorValue>>(
      {
        kind: 'run',
        key,
        rows: rows ?? 1,
        task: undefined,
        model: location,
        inputs,
        transfer: [],
        ownsInputs: options.transferInputs === true,
      },
      options.signal,
    );
  }

  async call<T>(hook: HookReference, payload: unknown, options: CallOptions = {}): Promise<T> {
    this.#checkOpen();
    return this.#enqueueTask<T>(
      { kind: 'call', module: hook.module.href, name: hook.name, payload },
      options,
    );
  }

  stats(): RunnerStats {
    return {
      workers: this.#workers,
      threadsPerSession: this.#threadsPerSession,
      queued: this.#waiting.size,
      running: this.#running,
      runs: this.#runs,
      batches: this.#batches,
      rows: this.#rows,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #shutDown(): Promise<void> {
    if (this.#waiting.size > 0 || this.#running > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
        this.#pump();
      });
    }
    await this.#pool.destroy();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined)
      throw modelsError('WAGGLE_RUNNER_CLOSED', 'the runner is closed');
  }

  #enqueueTask<T>(task: WorkerTask, options: CallOptions): Promise<T> {
    return this.#enqueue<T>(
      {
        kind: 'task',
        key: '',
        rows: 1,
        task,
        model: undefined,
        inputs: undefined,
        transfer: options.transfer ?? [],
        ownsInputs: false,
      },
      options.signal,
    );
  }

  async #enqueue<T>(
    parts: Omit<Request, 'sinceMs' | 'phase' | 'settle'>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    throwIfAborted(signal);
    if (this.#waiting.size >= this.#maxQueue) {
      throw modelsError('WAGGLE_RUNNER_QUEUE_FULL', `${this.#waiting.size} requests wait already`, {
        details: { queued: this.#waiting.size, running: this.#running, maxQueue: this.#maxQueue },
      });
    }
    return new Promise<T>((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(request);
        request.settle({
          error: coreError('WAGGLE_ABORTED', 'the run was aborted', { cause: signal?.reason }),
        });
        this.#noteIdle();
      };
      const request: Request = {
        ...parts,
        sinceMs: this.#clock.monotonicMs(),
        phase: 'waiting',
        settle(reply) {
          if (request.phase === 'settled') return;
          request.phase = 'settled';
          signal?.removeEventListener('abort', onAbort);
          if ('error' in reply) reject(reply.error);
          else resolve(reply.value as T);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(request);
      this.#pump();
    });
  }

  /** Sends out what may go now and sets the timer for what may not yet. O(waiting) per free worker. */
  #pump(): void {
    if (this.#timer !== undefined) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    while (this.#running < this.#workers && this.#waiting.size > 0) {
      const batch = this.#nextBatch();
      if (batch === undefined) break;
      for (const request of batch) {
        this.#waiting.delete(request);
        request.phase = 'running';
      }
      this.#running++;
      void this.#dispatch(batch);
    }
    this.#noteIdle();
  }

  /** The oldest request that may go, with all the company it can have. */
  #nextBatch(): Request[] | undefined {
    const nowMs = this.#clock.monotonicMs();
    const sums = new Map<string, number>();
    for (const request of this.#waiting) {
      if (request.key !== '') sums.set(request.key, (sums.get(request.key) ?? 0) + request.rows);
    }
    let soonestMs = Number.POSITIVE_INFINITY;
    for (const head of this.#waiting) {
      const waitedMs = nowMs - head.sinceMs;
      const due =
        head.key === '' ||
        this.#running === 0 ||
        this.#closing !== undefined ||
        sums.get(head.key)! >= this.#maxBatchRows ||
        waitedMs >= this.#maxWaitMs;
      if (!due) {
        soonestMs = Math.min(soonestMs, this.#maxWaitMs - waitedMs);
        continue;
      }
      if (head.key === '') return [head];
      const batch: Request[] = [];
      let rows = 0;
      for (const request of this.#waiting) {
        if (request.key !== head.key) continue;
        if (batch.length > 0 && rows + request.rows > this.#maxBatchRows) break;
        batch.push(request);
        rows += request.rows;
      }
      return batch;
    }
    this.#timer = setTimeout(() => this.#pump(), Math.max(0, soonestMs));
    return undefined;
  }

  async #dispatch(batch: readonly Request[]): Promise<void> {
    try {
      const head = batch[0]!;
      if (head.kind === 'task') {
        const reply = await this.#post(head.task!, head.transfer);
        head.settle(reply.ok ? { value: reply.value } : { error: reviveError(reply.error) });
      } else {
        await this.#dispatchRun(batch);
      }
    } catch (cause) {
      if (isWaggleError(cause)) {
        for (const request of batch) request.settle({ error: cause });
        return;
      }
      const error = modelsError(
        'WAGGLE_RUNNER_WORKER_LOST',
        `the worker ended: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      );
      for (const request of batch) request.settle({ error });
    } finally {
      this.#running--;
      this.#batches++;
      this.#runs += batch.length;
      this.#rows += batch.reduce((sum, request) => sum + request.rows, 0);
      this.#pump();
    }
  }

  async #dispatchRun(batch: readonly Request[]): Promise<void> {
    const head = batch[0]!;
    let inputs: TensorMap;
    if (batch.length > 1) inputs = concatRows(batch.map((request) => request.inputs!));
    else inputs = head.ownsInputs ? head.inputs! : copyTensors(head.inputs!);
    const task: WorkerTask = { kind: 'run', model: head.model!, inputs };
    const reply = await this.#post(task, buffersOf(inputs));
    if (!reply.ok) {
      // One caller's bad values must not fail its neighbours: run a failed batch again one by one.
      if (batch.length > 1) {
        for (const request of batch) {
          if (request.phase !== 'settled') await this.#dispatchRun([request]);
        }
        return;
      }
      head.settle({ error: reviveError(reply.error) });
      return;
    }
    const { outputs } = reply.value as RunReply;
    if (batch.length === 1) {
      head.settle({ value: outputs });
      return;
    }
    const total = batch.reduce((sum, request) => sum + request.rows, 0);
    if (Object.values(outputs).some((output) => output.dims[0] !== total)) {
      throw modelsError(
        'WAGGLE_MODEL_RUN_FAILED',
        `model ${head.model!.id} does not answer one row per row; load it with batch: false`,
      );
    }
    let from = 0;
    for (const request of batch) {
      request.settle({ value: sliceRows(outputs, from, from + request.rows) });
      from += request.rows;
    }
  }

  #post(task: WorkerTask, transfer: readonly ArrayBuffer[]): Promise<WorkerReply<unknown>> {
    if (transfer.length === 0) return this.#pool.run(task);
    return this.#pool.run(task, { transferList: [...transfer] });
  }

  #noteIdle(): void {
    if (this.#waiting.size === 0 && this.#running === 0) {
      this.#idle?.();
      this.#idle = undefined;
    }
  }
}

/** True when every tensor's first dimension is free, so that rows of several requests can share a run. */
function isBatchable(signature: ModelSignature): boolean {
  return [...signature.inputs, ...signature.outputs].every(
    (spec) => spec.dims.length > 0 && typeof spec.dims[0] !== 'number',
  );
}

function whole(name: string, value: number, least: number, most: number): number {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      `${name} must be a whole number from ${least} to ${most}, not ${value}`,
    );
  }
  return value;
}
