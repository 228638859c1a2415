import { coreError, throwIfAborted } from '@waggle/core';
import { fromAddon, nativeError } from './errors.js';
import { type Addon, addon, type SubmittedJob } from './loader.js';

/** Jobs one environment may have in flight; beyond it, calls are refused with WAGGLE_NATIVE_BUSY. */
export const MAX_JOBS_IN_FLIGHT = 1_024;

/** Native jobs of this environment that have not settled: a gauge for back-pressure and metrics. */
export function queueDepth(): number {
  return addon().queueDepth();
}

interface Followers {
  readonly callbacks: Set<() => void>;
  readonly onAbort: () => void;
}

// One listener per signal, however many jobs follow it: a request's signal is shared by all of its calls.
const followersOf = new WeakMap<AbortSignal, Followers>();

/** Calls `callback` when the signal fires, until the returned function is called. */
export function follow(signal: AbortSignal, callback: () => void): () => void {
  let followers = followersOf.get(signal);
  if (followers === undefined) {
    const callbacks = new Set<() => void>();
    const onAbort = (): void => {
      for (const running of callbacks) running();
    };
    followers = { callbacks, onAbort };
    followersOf.set(signal, followers);
    signal.addEventListener('abort', onAbort, { once: true });
  }
  followers.callbacks.add(callback);
  return () => unfollow(signal, callback);
}

/** The last one takes the listener off a signal that may outlive it. */
function unfollow(signal: AbortSignal, callback: () => void): void {
  const followers = followersOf.get(signal);
  if (followers === undefined) return;
  followers.callbacks.delete(callback);
  if (followers.callbacks.size > 0) return;
  followersOf.delete(signal);
  signal.removeEventListener('abort', followers.onAbort);
}

/**
 * A caller's signal, null as good as absent. Its shape, not instanceof: other contexts have their own classes.
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT
 */
export function checkSignal(value: unknown): AbortSignal | undefined {
  if (value === undefined || value === null) return undefined;
  const { aborted, addEventListener, removeEventListener } = value as Partial<AbortSignal>;
  if (
    typeof value === 'object' &&
    typeof aborted === 'boolean' &&
    typeof addEventListener === 'function' &&
    typeof removeEventListener === 'function'
  ) {
    return value as AbortSignal;
  }
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    'signal must be an AbortSignal, such as the `signal` of an AbortController',
    { details: { argument: 'signal' } },
  );
}

/**
 * Waits for a turn that never rejects, but not beyond the signal.
 * @throws WAGGLE_ABORTED
 */
export async function waitForTurn(
  turn: Promise<unknown>,
  signal: AbortSignal | undefined,
): Promise<void> {
  throwIfAborted(signal);
  if (signal === undefined) {
    await turn;
    return;
  }
  let stopFollowing = (): void => undefined;
  const aborted = new Promise<void>((resolve) => {
    stopFollowing = follow(signal, resolve);
  });
  await Promise.race([turn, aborted]);
  stopFollowing();
  throwIfAborted(signal);
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
