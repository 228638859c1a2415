import { coreError, throwIfAborted } from '@waggle/core';
import { fromAddon, nativeError } from './errors.js';
import { type Addon, addon, type SubmittedJob } from './loader.js';
import { checkSignal, follow } from './signals.js';

/** Jobs one environment may have in flight; beyond it, calls are refused with WAGGLE_NATIVE_BUSY. */
export const MAX_JOBS_IN_FLIGHT = 1_024;

/** Native jobs of this environment that have not settled: a gauge for back-pressure and metrics. */
export function queueDepth(): number {
  return addon().queueDepth();
}

/** Submits a job and follows its signal until it settles. Wrong arguments throw before anything starts. */
export async function runJob<Result = void>(
  submit: (addon: Addon) => SubmittedJob<Result>,
  callersSignal: AbortSignal | undefined,
): Promise<Result> {
  const signal = checkSignal(callersSignal);
  throwIfAborted(signal);
  const engine = addon();
  if (engine.queueDepth() >= MAX_JOBS_IN_FLIGHT) {
    throw nativeError('WAGGLE_NATIVE_BUSY', `${MAX_JOBS_IN_FLIGHT} jobs are in flight already`, {
      details: { limit: MAX_JOBS_IN_FLIGHT },
    });
  }
  let job: SubmittedJob<Result>;
  try {
    job = submit(engine);
  } catch (error) {
    throw fromAddon(error);
  }
  const { id, promise } = job;
  const stopFollowing = signal === undefined ? undefined : follow(signal, () => engine.cancel(id));
  try {
    return await promise;
  } catch (error) {
    const failure = fromAddon(error);
    if (failure.code === 'WAGGLE_ABORTED') {
      throw coreError('WAGGLE_ABORTED', 'the operation was aborted', { cause: signal?.reason });
    }
    throw failure;
  } finally {
    stopFollowing?.();
  }
}
