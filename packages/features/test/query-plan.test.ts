import { stringData } from '@waggle/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  acceptFeatures,
  buildDataset,
  ctrFeatures,
  type FeatureSet,
  type FeatureStore,
} from '../src/index.js';
import { buildSmallWorld, type SmallWorld, WORLD } from './support/small-world.js';

let world: SmallWorld;
beforeAll(async () => {
  world = await buildSmallWorld(4);
});
afterAll(() => world?.close());

/** Plans of the statements that a dataset takes, with the columns that every step hands on. */
async function plansOf(set: FeatureSet): Promise<string[][]> {
  const plans: string[][] = [];
  const store: FeatureStore = {
    async queryColumns(sql, options) {
      const plan = await world.store.queryColumns(`EXPLAIN header = 1, pretty = 0 ${sql}`, options);
      const lines = stringData(plan, Object.keys(plan.columns)[0]!);
      plans.push(Array.from(lines.codes, (code) => lines.dictionary[code]!));
      return world.store.queryColumns(sql, options);
    },
  };
  await buildDataset(store, set, {
    tenantId: WORLD.tenantId,
    fromMs: WORLD.startMs,
    toMs: WORLD.endMs,
    asOfMs: WORLD.endMs,
    embeddingModel: WORLD.model,
  });
  return plans;
}

/** Columns that the steps of that name hand on: a list that starts behind `Header:` and goes on below it. */
function columnsOf(plan: readonly string[], step: string): string[] {
  return plan.flatMap((line, i) => {
    const header = plan[i + 1];
    if (!line.trim().startsWith(step) || !header?.trim().startsWith('Header:')) return [];
    const indent = header.indexOf('Header:') + 'Header: '.length;
    const rest = plan.slice(i + 2);
    const end = rest.findIndex((l) => l.search(/\S/) < indent);
    return [header.slice(indent), ...rest.slice(0, end).map((l) => l.trim())];
  });
}

test.each([ctrFeatures, acceptFeatures])(
  'rows of $name are sorted without their embeddings, a hundred times wider than all the rest',
  async (set) => {
    const plans = await plansOf(set);
    expect(plans.some((plan) => plan.some((line) => line.includes('Array(Float32)')))).toBe(true);
    const sorted = plans.flatMap((plan) => columnsOf(plan, 'Sorting'));
    expect(sorted.length).toBeGreaterThan(0);
    expect(sorted.filter((column) => column.includes('Array(Float32)'))).toEqual([]);
  },
);
