import { type ColumnTable, DAY_MS, numericColumn } from '@waggle/core';
import { acceptFeatures, buildDataset, type FeatureStore } from '@waggle/features';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  type LoadedWorld,
  loadSimulatedWorld,
} from '../../features/test/support/simulated-world.js';
import { describedPart } from '../src/feature-params.js';
import { estimateAcceptParams, splitByTime } from '../src/index.js';

let loaded: LoadedWorld;
beforeAll(async () => {
  loaded = await loadSimulatedWorld({ scale: 'ci', seed: 1 }, [
    ...['publications', 'campaigns', 'creatives', 'posts', 'slots', 'sends', 'offers'],
  ]);
}, 300_000);
afterAll(() => loaded?.close());

/** A store in which offers shown from a time on were accepted and refused by turns. */
const otherwise = (store: FeatureStore, fromMs: number): FeatureStore => ({
  queryColumns: async (sql, options): Promise<ColumnTable> => {
    const found = await store.queryColumns(sql, options);
    const { successes, decision_ms: decided } = found.columns;
    if (successes?.kind !== 'numeric' || decided?.kind !== 'numeric') return found;
    const changed = Float64Array.from({ length: found.nRows }, (_, i) =>
      Number(decided.data[i]!) >= fromMs ? i % 2 : Number(successes.data[i]!),
    );
    return { ...found, columns: { ...found.columns, successes: numericColumn('f64', changed) } };
  },
});

test('answers that calibrate and gate p(accept) say nothing to its priors', async () => {
  const { store, range } = loaded;
  // Offers of this network run out in three days, so with one more some that have are not yet old enough to count.
  const split = { labelHorizonMs: 4 * DAY_MS, burnInMs: 0 };
  const offers = await buildDataset(store, describedPart(acceptFeatures, []), range);
  // As `trainAccept` cuts.
  const ripe = offers.decisionTsMs.filter((ts) => ts <= range.asOfMs - split.labelHorizonMs);
  expect(ripe.length).toBeLessThan(offers.nRows);
  const { calibrateFromMs } = splitByTime(ripe, undefined, split);
  const estimate = (from: FeatureStore) => estimateAcceptParams(from, { ...range, split });
  const params = await estimate(store);
  expect(Object.keys(params).length).toBeGreaterThan(5);
  const later = otherwise(store, calibrateFromMs);
  expect(await estimate(later)).toEqual(params);
  const earlier = otherwise(store, calibrateFromMs - DAY_MS);
  expect(await estimate(earlier)).not.toEqual(params);
}, 120_000);
