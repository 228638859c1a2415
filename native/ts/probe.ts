import { checkObject } from './arrays.js';
import { runJob } from './jobs.js';
import type { MachineLimits } from './loader.js';

export type { MachineLimits } from './loader.js';

/**
 * Measures what this machine's memory and arithmetic reach, on the engine's own threads: the limits that a measured
 * speed is compared with. Best of several short runs; about half a second and 256 MiB, so not beside real work.
 *
 * @returns bytes/s read and float32 operations/s, at the instruction set in use
 * @throws WAGGLE_NATIVE_OUT_OF_MEMORY, _BUSY; WAGGLE_ABORTED
 */
export async function probeMachine(
  o: { readonly signal?: AbortSignal | undefined } = {},
): Promise<MachineLimits> {
  checkObject('options', o);
  return await runJob((engine) => engine.machineProbe(), o.signal);
}
