import { DAY_MS, HOUR_MS } from '@waggle/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  buildDataset,
  CLICK_WINDOW_MS,
  clickMaturity,
  ctrFeatures,
  defineFeatureSet,
  type FeatureDefinition,
  isVerifiedClick,
  lastTime,
  placementOutcomes,
  placementSends,
  sends,
  sub,
  total,
} from '../src/index.js';
import { buildSmallWorld, type SmallWorld, WORLD } from './support/small-world.js';

let world: SmallWorld;
beforeAll(async () => {
  world = await buildSmallWorld(2);
});
afterAll(() => world?.close());

const feature = (
  name: string,
  entity: FeatureDefinition['entity'],
  value: FeatureDefinition['value'],
): FeatureDefinition => ({ name, entity, value, default: -1, description: `${name}, plain.` });

/** Plain counts, so that a few lines of JavaScript can say what they must be. */
const counts = defineFeatureSet({
  name: 'counts',
  row: 'placement',
  params: {},
  sources: [placementOutcomes, placementSends, sends],
  fits: [],
  features: [
    feature('clicks_all', [], total('placement_outcomes', 'clicks', [])),
    feature(
      'clicks_publication_5d',
      ['publication'],
      total('placement_outcomes', 'clicks', ['publication'], 5),
    ),
    feature(
      'delivered_campaign_10d',
      ['campaign'],
      total('placement_outcomes', 'delivered', ['campaign'], 10),
    ),
    feature(
      'runs_here',
      ['publication', 'campaign'],
      total('placement_sends', 'count', ['publication', 'campaign']),
    ),
    feature(
      'since_last_send',
      ['publication'],
      sub(lastTime('sends', ['publication']), WORLD.startMs),
    ),
  ],
});

/** Unique verified clicks per placement within 72 hours and before `untilMs`, the slow way. */
function clicksBy(untilMs: number): Map<string, number> {
  const sentMs = new Map(world.rows.placements.map((p) => [p.placement_id, Date.parse(p.ts)]));
  const seen = new Set<string>();
  const out = new Map<string, number>();
  const ordered = [...world.rows.clicks].sort((a, b) => Date.parse(a.ts) - Date.parse(b.ts));
  for (const click of ordered) {
    const at = Date.parse(click.ts);
    const key = `${click.placement_id}/${click.subscriber_key}`;
    if (!isVerifiedClick(click) || seen.has(key) || at > untilMs) continue;
    seen.add(key);
    const afterMs = at - sentMs.get(click.placement_id)!;
    if (afterMs >= -HOUR_MS && afterMs <= CLICK_WINDOW_MS) {
      out.set(click.placement_id, (out.get(click.placement_id) ?? 0) + 1);
    }
  }
  return out;
}

const range = {
  tenantId: WORLD.tenantId,
  fromMs: WORLD.startMs,
  toMs: WORLD.endMs,
  asOfMs: WORLD.endMs,
};

describe('training rows', () => {
  test('count exactly the facts that were available one millisecond before the send', async () => {
    const data = await buildDataset(world.store, counts, range);
    const clicks = clicksBy(WORLD.endMs);
    const placements = world.rows.placements.map((p) => ({ ...p, ms: Date.parse(p.ts) }));
    const byId = new Map(placements.map((p) => [p.placement_id, p]));
    expect(data.nRows).toBe(placements.length);
    for (let i = 0; i < data.nRows; i++) {
      const id = data.rowIds.dictionary[data.rowIds.codes[i]!]!;
      const own = byId.get(id)!;
      const asOf = own.ms - 1;
      const matured = (p: { ms: number }, days: number) =>
        p.ms + CLICK_WINDOW_MS <= asOf && p.ms + CLICK_WINDOW_MS > asOf - days * DAY_MS;
      let all = 0;
      let here = 0;
      let delivered = 0;
      let runs = 0;
      for (const p of placements) {
        const n = clicks.get(p.placement_id) ?? 0;
        if (matured(p, Number.POSITIVE_INFINITY)) all += n;
        if (p.publication_id === own.publication_id && matured(p, 5)) here += n;
        if (p.campaign_id === own.campaign_id && matured(p, 10)) delivered += p.delivered;
        if (
          p.publication_id === own.publication_id &&
          p.campaign_id === own.campaign_id &&
          p.ms <= asOf
        ) {
          runs++;
        }
      }
      let last = Number.NEGATIVE_INFINITY;
      for (const s of world.rows.sends) {
        const ms = Date.parse(s.ts);
        if (s.publication_id === own.publication_id && ms <= asOf && ms > last) last = ms;
      }
      expect(Array.from(data.x.subarray(i * 5, i * 5 + 5))).toEqual(
        [all, here, delivered, runs, Number.isFinite(last) ? last - WORLD.startMs : -1].map(
          Math.fround,
        ),
      );
    }
  });

  test('carry unique verified clicks as successes, deliveries as trials, and how much has arrived', async () => {
    const asOfMs = WORLD.startMs + 12 * DAY_MS;
    const data = await buildDataset(world.store, counts, { ...range, asOfMs });
    const clicks = clicksBy(asOfMs);
    const byId = new Map(world.rows.placements.map((p) => [p.placement_id, p]));
    let immature = 0;
    for (let i = 0; i < data.nRows; i++) {
      const id = data.rowIds.dictionary[data.rowIds.codes[i]!]!;
      const ms = data.decisionTsMs[i]!;
      expect(ms).toBeLessThanOrEqual(asOfMs);
      expect(data.successes[i]).toBe(clicks.get(id) ?? 0);
      expect(data.trials[i]).toBe(byId.get(id)!.delivered);
      expect(data.maturity[i]).toBe(clickMaturity(asOfMs - ms));
      if (data.maturity[i]! < 1) immature++;
      if (i > 0) expect(ms).toBeGreaterThanOrEqual(data.decisionTsMs[i - 1]!);
    }
    expect(immature).toBeGreaterThan(0);
  });

  test('are none, not an error, where nothing happened', async () => {
    const data = await buildDataset(world.store, ctrFeatures, { ...range, tenantId: 'ten_nobody' });
    expect(data.nRows).toBe(0);
    expect(data.x.length).toBe(0);
  });

  test('of one tenant never see another', async () => {
    const other = await buildDataset(world.store, counts, { ...range, tenantId: 'ten_nobody' });
    expect(other.nRows).toBe(0);
  });
});
