import type { ModelLocation } from './messages.js';
import type { ModelSession } from './sessions.js';

/** What a function that runs inside a worker may use: the worker's own sessions. */
export interface WorkerContext {
  open(model: ModelLocation): Promise<ModelSession>;
}

/** `transfer` names the buffers inside `value` that move instead of being copied. */
export interface WorkerHookResult<T> {
  readonly value: T;
  readonly transfer?: readonly ArrayBuffer[];
}

/**
 * A named export of a plain JavaScript module that `Runner.call` runs inside a worker. It must await all it
 * starts: between tasks the worker sleeps, and whatever was left running stalls.
 */
export type WorkerHook<P = never, T = unknown> = (
  payload: P,
  context: WorkerContext,
) => Promise<WorkerHookResult<T>> | WorkerHookResult<T>;
