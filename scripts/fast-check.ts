import { createRequire } from 'node:module';
import type FastCheck from 'fast-check';

/**
 * What tests import as `fast-check`. Every run tries the same inputs, so that a test which fails is a change's doing and not
 * chance's; `npm run check:slow` looks further:
 *
 *   WAGGLE_PROPERTY_SEED   other inputs
 *   WAGGLE_PROPERTY_RUNS   so many times as many runs of each property
 *   WAGGLE_PROPERTY_MS     a property that runs longer is content with what it has seen
 */
const real: typeof FastCheck = createRequire(import.meta.url)('fast-check');

const seed = Number(process.env['WAGGLE_PROPERTY_SEED'] ?? 1);
const times = Number(process.env['WAGGLE_PROPERTY_RUNS'] ?? 1);
const timeLimitMs = process.env['WAGGLE_PROPERTY_MS'];

const assert = ((property: never, parameters: FastCheck.Parameters<never> = {}) =>
  real.assert(property, {
    seed,
    ...(timeLimitMs === undefined ? {} : { interruptAfterTimeLimit: Number(timeLimitMs) }),
    ...parameters,
    numRuns: Math.ceil(times * (parameters.numRuns ?? 100)),
  })) as typeof real.assert;

export default { ...real, assert };
