import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openEmbeddedStore } from '../connections.js';
import { migrate } from '../migrations.js';
import type { Store } from '../store.js';

export interface TemporaryStore {
  readonly store: Store;
  readonly path: string;
  /** Closes the store and removes its directory. */
  dispose(): Promise<void>;
}

/** A migrated embedded store in a fresh directory; one per process at a time, as chDB demands. */
export async function temporaryStore(options: { migrate?: boolean } = {}): Promise<TemporaryStore> {
  const path = await mkdtemp(join(tmpdir(), 'waggle-store-'));
  const store = await openEmbeddedStore({ path });
  if (options.migrate !== false) await migrate(store);
  return {
    store,
    path,
    async dispose() {
      await store.close();
      await rm(path, { recursive: true, force: true });
    },
  };
}
