import { join } from 'node:path';
import { ReleaseStore } from '@waggle/releases';
import type { CommandContext } from './context.js';

/** The releases of this installation. */
export function releaseStore(
  context: Pick<CommandContext, 'dir' | 'clock' | 'logger'>,
): ReleaseStore {
  return new ReleaseStore({
    dir: join(context.dir, 'releases'),
    clock: context.clock,
    logger: context.logger,
  });
}
