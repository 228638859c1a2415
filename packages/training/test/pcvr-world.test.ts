import { DAY_MS, HOUR_MS, stringAt } from '@waggle/core';
import { buildConversionRows, conversionBuckets } from '@waggle/features';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  type LoadedWorld,
  loadSimulatedWorld,
} from '../../features/test/support/simulated-world.js';
import { type ConversionLabels, fitPcvr, scorePcvr } from '../src/index.js';

let loaded: LoadedWorld;
beforeAll(async () => {
  loaded = await loadSimulatedWorld({ scale: 'ci', seed: 1 }, [
    'publications',
    'campaigns',
    'placements',
    'clicks',
    'conversions',
  ]);
}, 300_000);
afterAll(() => loaded?.close());

/**
 * Fitted on what was known five days before the end of a simulated network, judged on the ads of those days against the
 * rates that the simulator drew: the share of the log-loss between one rate for all and the truth that is closed.
 */
test('on a simulated network delay buckets close more of the gap to the truth than either way to ignore delays', async () => {
  const { store, range, world } = loaded;
  const rateOf = new Map<string, number>(
    [...world.truth.campaigns.rows()].map((c) => [
      String(c['campaign_id']),
      Number(c['conversion_rate']),
    ]),
  );
  const cut = range.asOfMs - 4 * DAY_MS;
  const windowMs = 7 * DAY_MS;
  const bucketsMs = conversionBuckets(windowMs);
  const options = { tenantId: range.tenantId, bucketsMs };
  const past = await buildConversionRows(store, {
    ...options,
    fromMs: range.fromMs,
    toMs: cut,
    asOfMs: cut,
  });
  const later = await buildConversionRows(store, {
    ...options,
    fromMs: cut,
    toMs: range.asOfMs,
    asOfMs: range.asOfMs,
  });
  // The simulator's delays (domain §6).
  const share = [
    { part: 0.34, meanMs: HOUR_MS / 3 },
    { part: 0.13, meanMs: 8 * HOUR_MS },
    { part: 0.53, meanMs: 10 * DAY_MS },
  ].reduce((sum, { part, meanMs }) => sum - part * Math.expm1(-windowMs / meanMs), 0);
  const truth = Float64Array.from({ length: later.nRows }, (_, i) => {
    return share * rateOf.get(stringAt(later.keys.campaign, i))!;
  });
  const mean = (p: ArrayLike<number>, of: (p: number, t: number) => number) => {
    let [sum, mass] = [0, 0];
    for (let i = 0; i < later.nRows; i++) {
      sum += later.clicks[i]! * of(p[i]!, truth[i]!);
      mass += later.clicks[i]!;
    }
    return sum / mass;
  };
  const loss = (p: ArrayLike<number>) =>
    mean(p, (q, t) => -(t * Math.log(q) + (1 - t) * Math.log1p(-q)));
  const one = new Float64Array(later.nRows).fill(mean(truth, (_, t) => t));
  const closed = async (labels: ConversionLabels) => {
    const p = scorePcvr(await fitPcvr(past, { labels }), later);
    return (loss(one) - loss(p)) / (loss(one) - loss(truth));
  };
  const buckets = await closed('buckets');
  expect(buckets).toBeGreaterThan(0.6);
  expect(buckets).toBeGreaterThan((await closed('immature_negative')) + 0.02);
  expect(buckets).toBeGreaterThan((await closed('mature_only')) + 0.1);
}, 300_000);
