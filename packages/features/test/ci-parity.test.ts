import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DAY_MS, HOUR_MS, Rng } from '@waggle/core';
import { writeWorld } from '@waggle/simulator';
import type { Store } from '@waggle/store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { acceptFeatures, ctrFeatures, sentFeatures } from '../src/index.js';
import { compareOfflineOnline, openOnline, parityCases } from './support/parity.js';
import { openTemporaryStore } from './support/small-world.js';

/** Vectors stand in for texts here: parity is about numbers, not about what they mean. */
const DIM = 384;
const MODEL = 'random-384';
const TABLES = [
  'publications',
  'campaigns',
  'creatives',
  'posts',
  'sends',
  'offers',
  'placements',
  'opens',
  'clicks',
];

let store: Store;
let close: () => Promise<void>;
let tenantId: string;
let endMs: number;
let ids: { publications: string[]; campaigns: string[]; creatives: string[] };
let campaignOfCreative: Int32Array;
let embeddings: {
  dim: number;
  publication: Float32Array;
  campaign: Float32Array;
  creative: Float32Array;
};

beforeAll(async () => {
  const directory = mkdtempSync(join(tmpdir(), 'waggle-world-'));
  try {
    const { manifest } = writeWorld({ scale: 'ci', seed: 7 }, join(directory, 'world'));
    ({ tenantId, endMs } = manifest.config);
    ({ store, close } = await openTemporaryStore());
    for (const table of TABLES) {
      const file = manifest.tables[table];
      if (file === undefined) continue;
      await store.load(table, { path: join(directory, 'world', file.path), format: 'parquet' });
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  const list = async (kind: string) =>
    (
      await store.query<{ id: string }>(
        `SELECT DISTINCT ${kind}_id AS id FROM ${kind}s ORDER BY id`,
      )
    ).map((row) => row.id);
  ids = {
    publications: await list('publication'),
    campaigns: await list('campaign'),
    creatives: await list('creative'),
  };
  const rowOf = new Map(ids.campaigns.map((id, i) => [id, i]));
  const owners = await store.query<{ id: string; owner: string }>(
    'SELECT creative_id AS id, any(campaign_id) AS owner FROM creatives GROUP BY id ORDER BY id',
  );
  campaignOfCreative = Int32Array.from(owners, (row) => rowOf.get(row.owner)!);
  const rng = new Rng(11);
  const matrix = async (kind: 'publication' | 'campaign' | 'creative'): Promise<Float32Array> => {
    const names = ids[`${kind}s`];
    const out = new Float32Array(names.length * DIM);
    const rows: object[] = [];
    names.forEach((entity_id, i) => {
      if (rng.bernoulli(0.05)) return;
      const row = Float32Array.from({ length: DIM }, () => rng.normal() + 0.7);
      const norm = Math.hypot(...row);
      for (let d = 0; d < DIM; d++) out[i * DIM + d] = row[d]! / norm;
      rows.push({
        tenant_id: tenantId,
        entity_kind: kind,
        entity_id,
        model: MODEL,
        text_sha256: '0'.repeat(64),
        vector: Array.from(out.subarray(i * DIM, (i + 1) * DIM)),
        updated_at: new Date(endMs).toISOString(),
      });
    });
    await store.insert('embeddings', rows);
    return out;
  };
  embeddings = {
    dim: DIM,
    publication: await matrix('publication'),
    campaign: await matrix('campaign'),
    creative: await matrix('creative'),
  };
}, 300_000);
afterAll(() => close?.());

test.each([
  ['at the end of the world', 0],
  ['a week earlier, in the middle of a day', 7 * DAY_MS - 9 * HOUR_MS - 12_345],
])(
  'every feature of a ci world agrees offline and online %s',
  async (_, beforeEndMs) => {
    const asOfMs = endMs - beforeEndMs;
    const sets = [ctrFeatures, acceptFeatures, sentFeatures];
    const o = { tenantId, asOfMs, ids, embeddings, embeddingModel: MODEL };
    const online = await openOnline(store, sets, o);
    const cases = parityCases(
      { nPublications: ids.publications.length, campaignOfCreative, asOfMs, perPublication: 3 },
      beforeEndMs % 1000,
    );
    for (const set of sets) {
      const result = await compareOfflineOnline(store, set, {
        ...o,
        cases,
        online: online.get(set.name)!,
      });
      expect(result.compared).toBe(501 * 5 * set.names.length);
      expect(result.mismatches.slice(0, 5)).toEqual([]);
      // Agreement on constants would prove little: features vary, but for those of one value in this world.
      const constant = [...result.distinct].filter(([, n]) => n < 2).map(([name]) => name);
      expect(constant.length).toBeLessThanOrEqual(3);
    }
  },
  300_000,
);
