import { checkSignal, follow } from './signals.js';

const EVERY_MS = 100;

/**
 * Runs a job and calls `look` ten times a second until it settles, without keeping the process alive for that. When
 * `look` throws, the job is aborted and its error is that of the run.
 */
export async function withProgress<Result>(
  look: (() => void) | undefined,
  callersSignal: AbortSignal | undefined,
  run: (signal: AbortSignal | undefined) => Promise<Result>,
): Promise<Result> {
  if (look === undefined) return await run(callersSignal);
  const signal = checkSignal(callersSignal);
  const controller = new AbortController();
  if (signal?.aborted === true) controller.abort(signal.reason);
  const stopFollowing =
    signal === undefined ? undefined : follow(signal, () => controller.abort(signal.reason));
  let failure: { readonly error: unknown } | undefined;
  const timer = setInterval(() => {
    try {
      look();
    } catch (error) {
      clearInterval(timer);
      failure = { error };
      controller.abort(error);
    }
  }, EVERY_MS);
  timer.unref();
  try {
    const result = await run(controller.signal);
    if (failure === undefined) return result;
  } catch (error) {
    if (failure === undefined) throw error;
  } finally {
    clearInterval(timer);
    stopFollowing?.();
  }
  throw failure.error;
}
