import { fileURLToPath } from 'node:url';
import { silentLogger } from '@waggle/core';
import { openLocalStore, type Store } from '@waggle/store';

/** The command line, as built. */
export const waggle = fileURLToPath(new URL('../../apps/pipeline/bin/waggle.mjs', import.meta.url));

/** The store of a folder, with an owner of its own where none is running. */
export function openStoreOf(dir: string): Promise<Store> {
  return openLocalStore({
    dataDir: dir,
    logger: silentLogger,
    startOwner: { command: process.execPath, args: [waggle, 'store', '--dir', dir] },
  });
}
