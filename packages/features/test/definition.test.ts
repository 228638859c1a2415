import { describe, expect, test } from 'vitest';
import {
  acceptFeatures,
  add,
  attribute,
  ctrFeatures,
  defineFeatureSet,
  effect,
  type FeatureDefinition,
  type FeatureSetSpec,
  neighbours,
  param,
  placementOutcomes,
  resolveParams,
  total,
} from '../src/index.js';

const good: FeatureDefinition = {
  name: 'clicks',
  entity: ['publication'],
  value: total('placement_outcomes', 'clicks', ['publication'], 7),
  default: 0,
  description: 'Clicks of a week.',
};
const spec: FeatureSetSpec = {
  name: 'test',
  row: 'placement',
  params: { strength: 3 },
  sources: [placementOutcomes],
  fits: [],
  features: [good],
};
const declared = (feature: Partial<FeatureDefinition>) => () =>
  defineFeatureSet({ ...spec, features: [{ ...good, ...feature }] });

describe('the sets that ship', () => {
  test('pCTR has more than thirty features, all with words about them', () => {
    expect(ctrFeatures.names.length).toBeGreaterThanOrEqual(30);
    expect(acceptFeatures.names.length).toBeGreaterThanOrEqual(20);
    for (const set of [ctrFeatures, acceptFeatures]) {
      for (const feature of set.features) expect(feature.description).toMatch(/\S{3,}.*\.$/);
    }
  });

  test('offer a prior that is a prediction by itself', () => {
    expect(ctrFeatures.names).toContain('prior_logit_ctr');
    expect(acceptFeatures.names).toContain('prior_logit_accept');
  });
});

describe('a declaration', () => {
  test('says what it depends on, and is held to it', () => {
    expect(declared({ entity: ['campaign'] })).toThrow(/depends on \[publication\]/);
    expect(declared({ entity: ['publication', 'request'] })).toThrow(/WAGGLE|declared about/);
  });

  test('cannot name a source, measure, level or parameter that is not declared', () => {
    expect(declared({ value: total('nowhere', 'count', ['publication']) })).toThrow(
      /no fact source/,
    );
    expect(declared({ value: total('placement_outcomes', 'opens', ['publication']) })).toThrow(
      /no measure/,
    );
    expect(declared({ value: effect('ctr', 'campaign') })).toThrow(/no fit/);
    expect(declared({ value: add(good.value, param('other')) })).toThrow(/parameter other/);
  });

  test('has neighbours only where a level is about one text', () => {
    const withNeighbours = (level: string, entity: FeatureDefinition['entity']) => () =>
      defineFeatureSet({
        ...ctrFeatures,
        features: [{ ...good, entity, value: neighbours('ctr', level) }],
      });
    expect(withNeighbours('creative', ['creative'])).not.toThrow();
    for (const level of ['category_pair', 'pub_category', 'advertiser', 'base']) {
      expect(withNeighbours(level, ['publication'])).toThrow(/text of its own/);
    }
  });

  test('needs a finite default, a description, a window that is positive and a name of its own', () => {
    expect(declared({ default: Number.NaN })).toThrow(/default/);
    expect(declared({ description: ' ' })).toThrow(/description/);
    expect(declared({ value: total('placement_outcomes', 'clicks', ['publication'], 0) })).toThrow(
      /window/,
    );
    expect(() => defineFeatureSet({ ...spec, features: [good, good] })).toThrow(/twice/);
    expect(declared({ name: 'Clicks!' })).toThrow(/snake_case/);
  });

  test('carries a stable code', () => {
    expect(declared({ default: Number.NaN })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FEATURES_DECLARATION' }),
    );
  });
});

describe('the fingerprint', () => {
  const base = defineFeatureSet(spec).fingerprint;
  test('stays the same for the same declarations and other words', () => {
    expect(defineFeatureSet({ ...spec }).fingerprint).toBe(base);
    expect(declared({ description: 'Other words.' })().fingerprint).toBe(base);
  });

  test('changes with anything that can change a value', () => {
    const others = [
      declared({ default: 1 })(),
      declared({ name: 'other' })(),
      declared({ value: total('placement_outcomes', 'clicks', ['publication'], 8) })(),
      defineFeatureSet({ ...spec, params: { strength: 4 } }),
      defineFeatureSet({
        ...spec,
        sources: [{ ...placementOutcomes, sql: (read) => `${placementOutcomes.sql(read)} ` }],
      }),
      declared({
        entity: ['publication'],
        value: add(good.value, attribute('publication', 'active_subscribers')),
      })(),
    ].map((set) => set.fingerprint);
    expect(new Set([base, ...others]).size).toBe(others.length + 1);
  });
});

test('parameters are replaced by name only, with finite numbers', () => {
  const set = defineFeatureSet(spec);
  expect(resolveParams(set, { strength: 9 })).toEqual({ strength: 9 });
  for (const wrong of [{ strenght: 9 }, { strength: Number.NaN }]) {
    expect(() => resolveParams(set, wrong as Record<string, number>)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FEATURES_PARAM' }),
    );
  }
});
