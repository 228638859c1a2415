import { mix32, numericData } from '@waggle/core';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  acceptFeatures,
  buildSnapshot,
  ctrFeatures,
  decodeSnapshot,
  encodeSnapshot,
  type FeatureSnapshot,
  OnlineFeatures,
} from '../src/index.js';
import { buildSmallWorld, type SmallWorld, WORLD } from './support/small-world.js';

let world: SmallWorld;
let snapshot: FeatureSnapshot;
beforeAll(async () => {
  world = await buildSmallWorld(4);
  snapshot = await buildSnapshot(world.store, [ctrFeatures, acceptFeatures], {
    tenantId: WORLD.tenantId,
    asOfMs: WORLD.endMs,
    ids: world.ids,
  });
});
afterAll(() => world?.close());

const context = { tsMs: WORLD.endMs, position: 1, nAds: 2 };
const all = () => ({
  campaigns: world.campaignOfCreative,
  creatives: Int32Array.from(world.campaignOfCreative, (_, i) => i),
});

/** Numbers in [0, 1). */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    return mix32(state) / 4_294_967_296;
  };
}

function evaluate(online: OnlineFeatures, publicationRow: number): Float32Array {
  const { campaigns, creatives } = all();
  const out = new Float32Array(campaigns.length * online.nFeatures);
  online.evaluate({ ...context, publicationRow }, campaigns, creatives, out);
  return out;
}

describe('OnlineFeatures', () => {
  test('answers the same whether, when and beside whom a candidate was cached', () => {
    const fresh = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings);
    const expected = evaluate(fresh, 5);
    const other = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings);
    const width = other.nFeatures;
    const one = new Float32Array(width);
    for (let i = world.campaignOfCreative.length - 1; i >= 0; i--) {
      other.evaluate(
        { ...context, publicationRow: 5 },
        Int32Array.of(world.campaignOfCreative[i]!),
        Int32Array.of(i),
        one,
      );
      expect(one).toEqual(expected.slice(i * width, (i + 1) * width));
    }
    other.warm(6, all().campaigns, all().creatives);
    expect(evaluate(other, 6)).toEqual(evaluate(fresh, 6));
  });

  test('keeps its answers when the cache has no room and forgets all the time', () => {
    const roomy = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings);
    const tight = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings, { maxCacheBytes: 1 });
    for (const row of [0, 1, 2, 1, 0, 23, -1, 0]) {
      expect(evaluate(tight, row)).toEqual(evaluate(roomy, row));
    }
  });

  test('works through more candidates than fit one run', () => {
    const online = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings);
    const n = 1300;
    const nCreatives = world.campaignOfCreative.length;
    const creatives = Int32Array.from({ length: n }, (_, i) => i % nCreatives);
    const campaigns = Int32Array.from(creatives, (k) => world.campaignOfCreative[k]!);
    const out = new Float32Array(n * online.nFeatures);
    online.evaluate({ ...context, publicationRow: 2 }, campaigns, creatives, out);
    const expected = evaluate(online, 2);
    const width = online.nFeatures;
    for (let i = 0; i < n; i++) {
      const k = creatives[i]!;
      expect(out.subarray(i * width, (i + 1) * width)).toEqual(
        expected.subarray(k * width, (k + 1) * width),
      );
    }
  });

  test('sums are those of the features, to the last bit whatever was asked before or beside', () => {
    for (const set of [ctrFeatures, acceptFeatures]) {
      const online = new OnlineFeatures(set, snapshot, world.embeddings);
      const { campaigns, creatives } = all();
      const n = campaigns.length;
      const width = online.nFeatures;
      const rng = uniform(set.name.length);
      fc.assert(
        fc.property(
          fc.record({
            publicationRow: fc.integer({ min: -1, max: 23 }),
            position: fc.integer({ min: 1, max: 12 }),
            nAds: fc.integer({ min: 1, max: 6 }),
            laterMs: fc.integer({ min: 0, max: 86_400_000 }),
            menuSize: fc.option(fc.integer({ min: 1, max: 20 }), { nil: undefined }),
            withPrices: fc.boolean(),
            share: fc.constantFrom(0, 0.3, 1),
          }),
          (o) => {
            // Some features count for nothing, as in a sparse model or the prior.
            const weights = Float64Array.from({ length: width }, () =>
              rng() < o.share ? rng() - 0.5 : 0,
            );
            const at = {
              publicationRow: o.publicationRow,
              position: o.position,
              nAds: o.nAds,
              tsMs: WORLD.endMs + o.laterMs,
              ...(o.menuSize === undefined ? {} : { menuSize: o.menuSize }),
              ...(o.withPrices
                ? {
                    priceMicros: new Float64Array(n).fill(2e6),
                    estPayoutMicros: new Float64Array(n).fill(9e7),
                    rank: Float64Array.from({ length: n }, (_, i) => 1 + (i % 9)),
                  }
                : {}),
            };
            const x = new Float32Array(n * width);
            online.evaluate(at, campaigns, creatives, x);
            const sums = new Float64Array(n);
            online.evaluateSums(at, campaigns, creatives, weights, sums);
            for (let i = 0; i < n; i++) {
              let sum = 0;
              let size = 1;
              for (let f = 0; f < width; f++) {
                const term = weights[f]! * x[i * width + f]!;
                sum += term;
                size += Math.abs(term);
              }
              expect(Math.abs(sums[i]! - sum)).toBeLessThanOrEqual(1e-13 * size);
            }
            // Alone, on a cache of its own that has no room.
            const tight = new OnlineFeatures(set, snapshot, world.embeddings, { maxCacheBytes: 1 });
            const one = new Float64Array(1);
            for (let i = o.position % 7; i < n; i += 7) {
              const alone = {
                ...at,
                ...(o.withPrices
                  ? { priceMicros: [2e6], estPayoutMicros: [9e7], rank: [1 + (i % 9)] }
                  : {}),
              };
              tight.evaluateSums(
                alone,
                campaigns.subarray(i, i + 1),
                creatives.subarray(i, i + 1),
                weights,
                one,
              );
              expect(one[0]).toBe(sums[i]);
            }
          },
        ),
        { numRuns: 30 },
      );
      expect(() =>
        online.evaluateSums(
          { ...context, publicationRow: 0 },
          campaigns,
          creatives,
          new Float64Array(width + 1),
          new Float64Array(n),
        ),
      ).toThrow(expect.objectContaining({ code: 'WAGGLE_FEATURES_SHAPE' }));
    }
  });

  test('takes rows outside the catalog as unknown and still answers finite numbers', () => {
    for (const set of [ctrFeatures, acceptFeatures]) {
      const online = new OnlineFeatures(set, snapshot, world.embeddings);
      const out = new Float32Array(4 * online.nFeatures).fill(Number.NaN);
      online.evaluate(
        { tsMs: WORLD.endMs, position: 200, nAds: 1, publicationRow: 10_000 },
        Int32Array.of(-1, 0, 99, 3),
        Int32Array.of(-1, -1, 99, -1),
        out,
      );
      for (const value of out) expect(Number.isFinite(value)).toBe(true);
    }
  });

  test('names which features change with the request', () => {
    const online = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings);
    const changing = [...online.requestFeatures].map((f) => online.names[f]);
    expect(changing).toContain('hour_sin');
    expect(changing).toContain('prior_logit_ctr');
    expect(changing).not.toContain('publication_effect');
    expect(online.staticFeatures.length + online.requestFeatures.length).toBe(online.nFeatures);
    expect(ctrFeatures.depends.map((d) => d === 'request')).toEqual(
      ctrFeatures.names.map((name) => changing.includes(name)),
    );
  });

  test('refuses a snapshot of other declarations', () => {
    const foreign = {
      ...snapshot,
      sets: { ...snapshot.sets, ctr: { ...snapshot.sets['ctr']!, fingerprint: 'ctr_0' } },
    };
    expect(() => new OnlineFeatures(ctrFeatures, foreign, world.embeddings)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FEATURES_FINGERPRINT' }),
    );
  });

  test('refuses a snapshot that lacks a table or column', () => {
    const { publication: _, ...rest } = snapshot.tables;
    expect(
      () => new OnlineFeatures(ctrFeatures, { ...snapshot, tables: rest }, world.embeddings),
    ).toThrow(expect.objectContaining({ code: 'WAGGLE_FEATURES_SNAPSHOT' }));
    const bare = { ...snapshot.tables['campaign']!, columns: {} };
    expect(
      () =>
        new OnlineFeatures(
          ctrFeatures,
          { ...snapshot, tables: { ...snapshot.tables, campaign: bare } },
          world.embeddings,
        ),
    ).toThrow(expect.objectContaining({ code: 'WAGGLE_FEATURES_SNAPSHOT' }));
  });

  test('refuses arrays that do not fit each other', () => {
    const online = new OnlineFeatures(ctrFeatures, snapshot, world.embeddings);
    const one = Int32Array.of(0);
    const shape = expect.objectContaining({ code: 'WAGGLE_FEATURES_SHAPE' });
    expect(() =>
      online.evaluate(
        { ...context, publicationRow: 0 },
        one,
        new Int32Array(2),
        new Float32Array(999),
      ),
    ).toThrow(shape);
    expect(() =>
      online.evaluate({ ...context, publicationRow: 0 }, one, one, new Float32Array(1)),
    ).toThrow(shape);
    expect(() =>
      online.evaluate({ ...context, publicationRow: 0, rank: [] }, one, one, new Float32Array(999)),
    ).toThrow(shape);
    expect(
      () => new OnlineFeatures(ctrFeatures, snapshot, { ...world.embeddings, dim: 9 }),
    ).toThrow(shape);
  });
});

describe('a snapshot file', () => {
  test('reads back as what was written, byte for byte', () => {
    const files = encodeSnapshot(snapshot);
    const again = decodeSnapshot((file) => files[file]!);
    expect(again).toEqual(snapshot);
    expect(encodeSnapshot(again)).toEqual(files);
    expect(evaluate(new OnlineFeatures(ctrFeatures, again, world.embeddings), 7)).toEqual(
      evaluate(new OnlineFeatures(ctrFeatures, snapshot, world.embeddings), 7),
    );
  });

  test('that is missing, altered or newer is refused with a code', () => {
    const files = encodeSnapshot(snapshot);
    const broken = expect.objectContaining({ code: 'WAGGLE_FEATURES_SNAPSHOT' });
    const reading = (change: Record<string, Uint8Array | undefined>) => () =>
      decodeSnapshot((file) => {
        const bytes = file in change ? change[file] : files[file];
        if (bytes === undefined) throw new Error(`no ${file}`);
        return bytes;
      });
    expect(reading({ 'snapshot.json': undefined })).toThrow(broken);
    expect(reading({ 'snapshot.json': Uint8Array.of(1, 2, 255) })).toThrow(broken);
    expect(reading({ 'snapshot.json': new TextEncoder().encode('{"version":99}') })).toThrow(
      broken,
    );
    expect(
      reading({ 'snapshot.campaign.col': files['snapshot.campaign.col']!.slice(0, 100) }),
    ).toThrow(expect.objectContaining({ code: 'WAGGLE_COLUMNS_CORRUPT' }));
  });
});

test('attributes may be known later than events: a campaign that was changed since has its new ones, and no fact moves', async () => {
  const { store } = world;
  const changedMs = WORLD.endMs + 3_600_000;
  const [row] = await store.query<Record<string, unknown>>(
    "SELECT * FROM campaigns FINAL WHERE campaign_id = 'cmp_0' ORDER BY version DESC LIMIT 1",
  );
  const bid_micros = 10 * Number(row!['bid_micros']);
  const updated_at = new Date(changedMs).toISOString();
  await store.insert('campaigns', [
    { ...row, version: 99, updated_at, bid_micros },
    { ...row, campaign_id: 'cmp_new', version: 1, updated_at },
    { ...row, version: 100, updated_at: new Date(changedMs + 1).toISOString(), bid_micros: 1 },
  ]);
  const build = (entitiesAsOfMs?: number) =>
    buildSnapshot(store, [ctrFeatures], {
      tenantId: WORLD.tenantId,
      asOfMs: WORLD.endMs,
      ...(entitiesAsOfMs !== undefined && { entitiesAsOfMs }),
      ids: { ...world.ids, campaigns: [...world.ids.campaigns, 'cmp_new'] },
    });
  const bids = ({ tables }: FeatureSnapshot): number[] => {
    const name = Object.keys(tables['campaign']!.columns).find((c) => c.includes('bid_micros'))!;
    return [...numericData(tables['campaign']!, name, 'f64')].map((bid) => Math.round(bid * 1e6));
  };
  const before = await build();
  const after = await build(changedMs);
  const last = world.ids.campaigns.length;
  expect(bids(before)[last]).toBeNaN();
  expect(bids(after)[0]).toBe(10 * bids(before)[0]!);
  expect(bids(after)[last]).toBe(bids(before)[0]);
  expect(bids(after).slice(1, last)).toEqual(bids(before).slice(1, last));
  expect(after.asOfMs).toBe(WORLD.endMs);
  expect(after.tables['publication']).toEqual(before.tables['publication']);
});
