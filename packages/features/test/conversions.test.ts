import { DAY_MS, HOUR_MS, stringAt } from '@waggle/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  buildConversionRows,
  CONVERSION_BUCKETS_MS,
  CONVERSION_WINDOW_MS,
  conversionBuckets,
  isVerifiedClick,
} from '../src/index.js';
import { type LoadedWorld, loadSimulatedWorld, rowsOf } from './support/simulated-world.js';

let loaded: LoadedWorld;
beforeAll(async () => {
  loaded = await loadSimulatedWorld(
    { scale: 'ci', seed: 4, overrides: { publications: 80, campaigns: 20 } },
    ['publications', 'campaigns', 'placements', 'clicks', 'conversions'],
  );
}, 120_000);
afterAll(() => loaded?.close());

const ms = (value: unknown): number => Date.parse(String(value));

/** Per ad and bucket, by a loop over the events up to `asOfMs`. */
function counted(asOfMs: number, bucketsMs: readonly number[]) {
  const { world } = loaded;
  const conversions = new Map<unknown, number>();
  for (const c of rowsOf(world, 'conversions')) {
    if (c['type'] !== 'conversion' || ms(c['ts']) > asOfMs) continue;
    const before = conversions.get(c['click_id']) ?? Number.POSITIVE_INFINITY;
    conversions.set(c['click_id'], Math.min(before, ms(c['ts'])));
  }
  const people = new Map<string, { placement: string; click: number; conversion: number }>();
  for (const k of rowsOf(world, 'clicks')) {
    if (!isVerifiedClick(k as never) || ms(k['ts']) > asOfMs) continue;
    const key = `${k['placement_id']}/${k['subscriber_key']}`;
    const own = people.get(key) ?? {
      placement: String(k['placement_id']),
      click: Number.POSITIVE_INFINITY,
      conversion: Number.POSITIVE_INFINITY,
    };
    own.click = Math.min(own.click, ms(k['ts']));
    own.conversion = Math.min(
      own.conversion,
      conversions.get(k['event_id']) ?? Number.POSITIVE_INFINITY,
    );
    people.set(key, own);
  }
  const out = new Map<
    string,
    { clicks: number; converted: number; observed: number[]; conversions: number[] }
  >();
  for (const { placement, click, conversion } of people.values()) {
    const own = out.get(placement) ?? {
      clicks: 0,
      converted: 0,
      observed: bucketsMs.map(() => 0),
      conversions: bucketsMs.map(() => 0),
    };
    own.clicks++;
    if (conversion < Number.POSITIVE_INFINITY) own.converted++;
    bucketsMs.forEach((end, b) => {
      if (click + end > asOfMs) return;
      own.observed[b]!++;
      const delay = conversion - click;
      if (delay >= (bucketsMs[b - 1] ?? 0) && delay < end) own.conversions[b]!++;
    });
    out.set(placement, own);
  }
  return out;
}

test.each([
  ['at the end', 0],
  ['half a week earlier', 3.5 * DAY_MS],
])('counts clicks and conversions by delay as a loop does, %s', async (_, earlier) => {
  const { store, range } = loaded;
  const asOfMs = range.asOfMs - earlier;
  const bucketsMs = [HOUR_MS, DAY_MS, 4 * DAY_MS, 8 * DAY_MS];
  const rows = await buildConversionRows(store, { ...range, asOfMs, bucketsMs });
  const want = counted(asOfMs, bucketsMs);
  expect(rows.nRows).toBe(want.size);
  let conversions = 0;
  for (let i = 0; i < rows.nRows; i++) {
    const own = want.get(stringAt(rows.placement, i))!;
    const part = (column: Float64Array) => [...column.subarray(i * 4, i * 4 + 4)];
    expect(rows.clicks[i]).toBe(own.clicks);
    expect(rows.converted[i]).toBe(own.converted);
    expect(part(rows.observed)).toEqual(own.observed);
    expect(part(rows.conversions)).toEqual(own.conversions);
    expect(rows.maturedConversions[i]!).toBeLessThanOrEqual(own.observed[3]!);
    conversions += own.converted;
  }
  expect(conversions).toBeGreaterThan(30);
});

test('keys are those of the ad, with the attributes valid when it was sent', async () => {
  const { store, range, world } = loaded;
  const rows = await buildConversionRows(store, range);
  const campaigns = new Map(rowsOf(world, 'campaigns').map((c) => [c['campaign_id'], c]));
  const publications = new Map(rowsOf(world, 'publications').map((p) => [p['publication_id'], p]));
  for (let i = 0; i < rows.nRows; i++) {
    const at = (key: keyof typeof rows.keys) => stringAt(rows.keys[key], i);
    const campaign = campaigns.get(at('campaign'))!;
    expect(at('advertiser')).toBe(campaign['advertiser_id']);
    expect(at('campaign_category')).toBe(campaign['category']);
    expect(at('goal')).toBe(campaign['goal']);
    expect(at('audience')).toBe(publications.get(at('publication'))!['audience']);
  }
});

test('buckets that do not rise are refused, other tenants are not seen', async () => {
  const { store, range } = loaded;
  for (const bucketsMs of [[], [HOUR_MS, HOUR_MS], [DAY_MS, HOUR_MS], [0], [1.5]]) {
    await expect(buildConversionRows(store, { ...range, bucketsMs })).rejects.toMatchObject({
      code: 'WAGGLE_FEATURES_SHAPE',
    });
  }
  const none = await buildConversionRows(store, { ...range, tenantId: 'ten_nobody' });
  expect(none.nRows).toBe(0);
  expect(none.observed).toHaveLength(0);
});

test('default buckets end at the window that is asked for', () => {
  expect(conversionBuckets(CONVERSION_WINDOW_MS)).toEqual(CONVERSION_BUCKETS_MS);
  expect(conversionBuckets(7 * DAY_MS).at(-1)).toBe(7 * DAY_MS);
  expect(() => conversionBuckets(10)).toThrow(
    expect.objectContaining({ code: 'WAGGLE_FEATURES_SHAPE' }),
  );
});
