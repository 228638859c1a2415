import { DAY_MS, HOUR_MS } from '@waggle/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptFeatures, ctrFeatures, sentFeatures } from '../src/index.js';
import { compareOfflineOnline, openOnline, parityCases } from './support/parity.js';
import { buildSmallWorld, type SmallWorld, WORLD } from './support/small-world.js';

let world: SmallWorld;
beforeAll(async () => {
  world = await buildSmallWorld();
});
afterAll(() => world?.close());

describe('offline SQL and online evaluation agree on every feature, value by value', () => {
  const moments = {
    'before any event': WORLD.startMs - DAY_MS,
    'at the very first event': WORLD.startMs,
    'in the middle, between refits': WORLD.startMs + 9 * DAY_MS + 13 * HOUR_MS + 1,
    'exactly when facts become available': WORLD.startMs + 11 * DAY_MS + 5 * HOUR_MS,
    'at the end': WORLD.endMs,
    'when windows have run out': WORLD.endMs + 26 * DAY_MS + 7 * HOUR_MS,
  };
  for (const [name, asOfMs] of Object.entries(moments)) {
    test(name, async () => {
      const sets = [ctrFeatures, acceptFeatures, sentFeatures];
      const o = { tenantId: WORLD.tenantId, asOfMs, ids: world.ids, embeddings: world.embeddings };
      const online = await openOnline(world.store, sets, o);
      const cases = parityCases(
        {
          nPublications: world.ids.publications.length,
          campaignOfCreative: world.campaignOfCreative,
          asOfMs,
          perPublication: 4,
        },
        asOfMs % 1000,
      );
      for (const set of sets) {
        const result = await compareOfflineOnline(world.store, set, {
          ...o,
          cases,
          online: online.get(set.name)!,
        });
        expect(result.compared).toBe(25 * 6 * set.names.length);
        expect(result.mismatches.slice(0, 5)).toEqual([]);
      }
    });
  }
});
