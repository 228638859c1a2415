import { isWaggleError, type SerializedWaggleError, WaggleError } from '@waggle/core';
import { modelsError } from '../errors.js';
import type { ModelSignature } from '../runner/tensor.js';
import type { WorkerHook } from './hook.js';
import type { RunReply, WorkerTask } from './messages.js';
import { messageOf, type SessionCache } from './sessions.js';

export interface TaskResult {
  readonly value: unknown;
  readonly transfer: readonly ArrayBuffer[];
}

const hooks = new Map<string, WorkerHook<unknown, unknown>>();

async function loadHook(module: string, name: string): Promise<WorkerHook<unknown, unknown>> {
  const key = `${module}#${name}`;
  let hook = hooks.get(key);
  if (hook === undefined) {
    const loaded: Record<string, unknown> = await import(module);
    const exported = loaded[name];
    if (typeof exported !== 'function') {
      throw modelsError(
        'WAGGLE_RUNNER_HOOK_FAILED',
        `${module} does not export a function named ${name}`,
      );
    }
    hook = exported as WorkerHook<unknown, unknown>;
    hooks.set(key, hook);
  }
  return hook;
}

/** Does one task on the calling thread. @throws what the task throws */
export async function runTask(task: WorkerTask, sessions: SessionCache): Promise<TaskResult> {
  switch (task.kind) {
    case 'load': {
      const session = await sessions.open(task.model);
      return { value: session.signature satisfies ModelSignature, transfer: [] };
    }
    case 'run': {
      const session = await sessions.open(task.model);
      const outputs = await session.run(task.inputs);
      const value: RunReply = { outputs, signature: session.signature };
      return {
        value,
        transfer: Object.values(outputs).map((output) => output.data.buffer as ArrayBuffer),
      };
    }
    case 'call': {
      const hook = await loadHook(task.module, task.name);
      const result = await hook(task.payload, { open: (model) => sessions.open(model) });
      return { value: result.value, transfer: result.transfer ?? [] };
    }
  }
}

/** A failure as data. What carries no code of ours gets one. */
export function serializeFailure(thrown: unknown): SerializedWaggleError {
  if (isWaggleError(thrown)) return thrown.toJSON();
  // A hook may bring its own copy of core: recognise its errors by shape.
  if (thrown instanceof Error && /^WAGGLE_/.test(String((thrown as { code?: unknown }).code))) {
    const like = thrown as Error & WaggleError;
    return new WaggleError(like.code, like.message, { details: like.details ?? {} }).toJSON();
  }
  return modelsError('WAGGLE_RUNNER_HOOK_FAILED', messageOf(thrown)).toJSON();
}
