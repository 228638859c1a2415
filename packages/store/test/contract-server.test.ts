import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger, systemClock } from '@waggle/core';
import { openServerStore } from '../src/index.js';
import { startStoreServer } from '../src/server/index.js';
import { storeContractSuite } from './support/store-contract.js';

storeContractSuite('waggle store over HTTP', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'waggle-server-'));
  const server = await startStoreServer({ dir, logger: silentLogger, clock: systemClock });
  const { url, user, password } = server;
  const store = await openServerStore({ url, username: user, password, kind: 'owner' });
  return {
    store,
    http: { url, user, password },
    async dispose() {
      await store.close();
      await server.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
});
