import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  acceptFeatures,
  add,
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
