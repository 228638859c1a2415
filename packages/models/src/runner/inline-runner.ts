import { throwIfAborted, toWaggleError, WaggleError } from '@waggle/core';
import { modelsError } from '../errors.js';
import { SessionCache } from '../worker/sessions.js';
import { runTask, serializeFailure } from '../worker/tasks.js';
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
  checkInputs,
  commonRows,
  type ModelSignature,
  type TensorMap,
  type TensorValue,
} from './tensor.js';

/**
 * A runner without threads: for tests, scripts and tiny models. A run blocks the calling thread, because
 * `run()` of onnxruntime-node does.
 */
export class InlineRunner implements Runner {
  readonly #sessions: SessionCache;
  readonly #models = new ModelTable();
  readonly #threads: number;
  #runs = 0;
  #rows = 0;
  #closed = false;

  constructor(options: { readonly intraOpNumThreads?: number } = {}) {
    this.#threads = options.intraOpNumThreads ?? 1;
    this.#sessions = new SessionCache({ intraOpNumThreads: this.#threads });
  }

  async load(source: ModelSource): Promise<ModelSignature> {
    this.#checkOpen();
    return this.#models.load(
      source,
      async (location) => (await this.#sessions.open(location)).signature,
    );
  }

  async run(
    modelId: string,
    inputs: TensorMap,
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    this.#checkOpen();
    throwIfAborted(options.signal);
    const model = this.#models.get(modelId);
    checkInputs(modelId, model.signature, inputs);
    const session = await this.#sessions.open(model.location);
    const outputs = await session.run(inputs);
    throwIfAborted(options.signal);
    this.#runs++;
    this.#rows += commonRows(inputs) ?? 1;
    return outputs;
  }

  async call<T>(hook: HookReference, payload: unknown, options: CallOptions = {}): Promise<T> {
    this.#checkOpen();
    throwIfAborted(options.signal);
    try {
      const result = await runTask(
        { kind: 'call', module: hook.module.href, name: hook.name, payload },
        this.#sessions,
      );
      throwIfAborted(options.signal);
      this.#runs++;
      return result.value as T;
    } catch (thrown) {
      if (thrown instanceof WaggleError) throw thrown;
      const data = serializeFailure(thrown);
      throw modelsError('WAGGLE_RUNNER_HOOK_FAILED', data.message, {
        cause: toWaggleError(thrown),
      });
    }
  }

  stats(): RunnerStats {
    return {
      workers: 0,
      threadsPerSession: this.#threads,
      queued: 0,
      running: 0,
      runs: this.#runs,
      batches: this.#runs,
      rows: this.#rows,
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #checkOpen(): void {
    if (this.#closed) throw modelsError('WAGGLE_RUNNER_CLOSED', 'the runner is closed');
  }
}
