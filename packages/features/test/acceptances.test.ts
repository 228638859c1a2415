import { DAY_MS, stringAt } from '@waggle/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  buildDataset,
  findLeaks,
  SEND_GRACE_MS,
  sentFeatures,
  UNSCHEDULED_WINDOW_MS,
} from '../src/index.js';
import { type LoadedWorld, loadSimulatedWorld, rowsOf } from './support/simulated-world.js';

const TABLES = ['publications', 'campaigns', 'creatives', 'posts', 'sends', 'placements'];

let loaded: LoadedWorld;
beforeAll(async () => {
  loaded = await loadSimulatedWorld(
    { scale: 'ci', seed: 3, overrides: { publications: 120, campaigns: 20 } },
    TABLES,
  );
}, 120_000);
afterAll(() => loaded?.close());

/** What a loop over the events says of every acceptance, as of a time. */
function expected(asOfMs: number): Map<string, { due: number; sent: number; scheduled: boolean }> {
  const { world } = loaded;
  const planned = new Map<unknown, number>();
  for (const post of rowsOf(world, 'posts')) {
    if (!planned.has(post['post_id']))
      planned.set(post['post_id'], Date.parse(String(post['planned_at'])));
  }
  const sent = new Map<unknown, number>();
  const reserved: { id: string; ms: number; post: unknown }[] = [];
  for (const p of rowsOf(world, 'placements')) {
    const ms = Date.parse(String(p['ts']));
    if (ms > asOfMs) continue;
    if (p['type'] === 'placement.sent') sent.set(p['placement_id'], ms);
    if (p['type'] === 'placement.reserved' && p['mode'] === 'on_demand') {
      reserved.push({ id: String(p['placement_id']), ms, post: p['post_id'] });
    }
  }
  return new Map(
    reserved.map(({ id, ms, post }) => {
      const at = planned.get(post);
      const due = at === undefined ? ms + UNSCHEDULED_WINDOW_MS : Math.max(at, ms) + SEND_GRACE_MS;
      const went = sent.get(id);
      return [
        id,
        { due, sent: went !== undefined && went <= due ? 1 : 0, scheduled: at !== undefined },
      ];
    }),
  );
}

test.each([
  ['at the end', 0],
  ['five days earlier', 5 * DAY_MS],
])(
  'labels are what a loop over the events says %s, and what is not due is no row',
  async (_, earlier) => {
    const asOfMs = loaded.range.asOfMs - earlier;
    const rows = await buildDataset(loaded.store, sentFeatures, {
      ...loaded.range,
      toMs: asOfMs,
      asOfMs,
    });
    const truth = expected(asOfMs);
    const due = [...truth].filter(([, { due: at }]) => at <= asOfMs);
    expect(rows.nRows).toBe(due.length);
    expect(due.length).toBeLessThan(truth.size);
    const scheduled = rows.featureNames.indexOf('is_scheduled');
    let nSent = 0;
    for (let i = 0; i < rows.nRows; i++) {
      const want = truth.get(stringAt(rows.rowIds, i))!;
      expect(rows.successes[i]).toBe(want.sent);
      expect(rows.x[i * rows.featureNames.length + scheduled]).toBe(want.scheduled ? 1 : 0);
      nSent += want.sent;
    }
    expect(nSent).toBeGreaterThan(20);
    expect(nSent).toBeLessThan(rows.nRows);
  },
);

test('an accepted ad that waits for its issue is not counted against its publication', async () => {
  const { store, range } = loaded;
  const all = await buildDataset(store, sentFeatures, range);
  // Rates are those of the last day's acceptances: far from 0 although most of the recent ones are still waiting.
  const rate = all.featureNames.indexOf('show_rate_publication');
  const last = all.decisionTsMs.length - 1;
  expect(all.x[last * all.featureNames.length + rate]).toBeGreaterThan(1);
});

test('no feature knows what is known only later', async () => {
  const leaks = await findLeaks(loaded.store, sentFeatures, { ...loaded.range, probes: 2 });
  expect(leaks).toEqual([]);
}, 120_000);

test('of one tenant never sees another', async () => {
  const rows = await buildDataset(loaded.store, sentFeatures, {
    ...loaded.range,
    tenantId: 'ten_nobody',
  });
  expect(rows.nRows).toBe(0);
});
