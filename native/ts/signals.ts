// Following a caller's signal.
import { throwIfAborted } from '@waggle/core';
import { nativeError } from './errors.js';

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
