import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  acceptFeatures,
  add,
  binomialAuc,
  clicksPerPlacementSql,
  ctrFeatures,
  defineFeatureSet,
  type FactSource,
  findLeaks,
  log1p,
  offerOutcomesSql,
  total,
} from '../src/index.js';
import { buildSmallWorld, type SmallWorld, WORLD } from './support/small-world.js';

let world: SmallWorld;
beforeAll(async () => {
  world = await buildSmallWorld(3);
});
afterAll(() => world?.close());

const options = {
  tenantId: WORLD.tenantId,
  fromMs: WORLD.startMs,
  toMs: WORLD.endMs,
  asOfMs: WORLD.endMs,
};

/** The mistake that everybody makes once: the outcome is attached to the time of sending. */
const instantOutcomes: FactSource = {
  name: 'instant_outcomes',
  description: 'Clicks of a placement, as if they were known when it is sent.',
  measures: ['clicks', 'delivered'],
  sql: (read) => `
SELECT toUnixTimestamp64Milli(p.ts) AS event_ms, event_ms AS available_ms, p.publication_id AS publication_id,
  p.campaign_id AS campaign_id, p.creative_id AS creative_id, p.position AS position,
  toFloat64(p.delivered) AS delivered, c.clicks AS clicks
FROM ${read.events('placements', "type = 'placement.sent'")} AS p
LEFT JOIN (${clicksPerPlacementSql(read)}) AS c ON c.placement_id = p.placement_id`,
};

/** Worse: the answer to this very offer. */
const ownAnswer: FactSource = {
  name: 'own_answer',
  description: 'Acceptance of an offer, known just before it is shown.',
  measures: ['accepted'],
  sql: (read) => `
SELECT shown_ms AS event_ms, shown_ms - 1 AS available_ms, publication_id, campaign_id, creative_id,
  toUInt8(0) AS position, toFloat64(accepted) AS accepted FROM (${offerOutcomesSql(read)})`,
};

describe('findLeaks', () => {
  test('finds nothing in the sets that ship', async () => {
    expect(await findLeaks(world.store, ctrFeatures, { ...options, probes: 2 })).toEqual([]);
    expect(await findLeaks(world.store, acceptFeatures, { ...options, probes: 2 })).toEqual([]);
  });

  test('catches a feature that counts outcomes before they are known, and only that one', async () => {
    const leaky = defineFeatureSet({
      ...ctrFeatures,
      sources: [...ctrFeatures.sources, instantOutcomes],
      features: [
        ...ctrFeatures.features,
        {
          name: 'leaky_clicks',
          entity: ['publication'],
          value: log1p(total('instant_outcomes', 'clicks', ['publication'], 28)),
          default: 0,
          description: 'Clicks that include those of the last three days.',
        },
      ],
    });
    const leaks = await findLeaks(world.store, leaky, { ...options, probes: 1 });
    expect(leaks.map((l) => [l.feature, l.kind])).toEqual([['leaky_clicks', 'future']]);
  });

  test('catches the outcome itself, as future and as too good', async () => {
    const leaky = defineFeatureSet({
      ...acceptFeatures,
      sources: [...acceptFeatures.sources, ownAnswer],
      features: [
        ...acceptFeatures.features,
        {
          name: 'own_answer',
          entity: ['publication', 'campaign'],
          value: add(total('own_answer', 'accepted', ['publication', 'campaign'], 1e-7), 0),
          default: 0,
          description: 'Accepted offers of the last hundredth of a second.',
        },
      ],
    });
    // One menu may offer a campaign twice, so even the answer itself is not quite unambiguous here.
    const leaks = await findLeaks(world.store, leaky, { ...options, probes: 1, maxAuc: 0.9 });
    expect(new Set(leaks.map((l) => l.feature))).toEqual(new Set(['own_answer']));
    expect(leaks.map((l) => l.kind)).toContain('too_good');
  });
});

describe('binomialAuc', () => {
  test('matches a hand-worked case with ties', () => {
    // Scores 1: 1 of 2 succeed, 2: 2 of 2. Pairs (success, failure): (1,1) tie, (2,1) twice won.
    const auc = binomialAuc(Float64Array.of(1, 2), Float64Array.of(1, 2), Float64Array.of(2, 2));
    expect(auc).toBeCloseTo((0.5 + 2) / 3, 12);
  });

  test('is one half when nothing can be told apart', () => {
    expect(binomialAuc(Float64Array.of(3, 3), Float64Array.of(1, 0), Float64Array.of(1, 1))).toBe(
      0.5,
    );
    expect(binomialAuc(Float64Array.of(1, 2), Float64Array.of(0, 0), Float64Array.of(1, 1))).toBe(
      0.5,
    );
  });
});
