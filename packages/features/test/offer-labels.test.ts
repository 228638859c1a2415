import { HOUR_MS, stringAt } from '@waggle/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptFeatures, buildDataset, buildOfferAnswers, OFFER_ANSWERS } from '../src/index.js';
import { type LoadedWorld, loadSimulatedWorld, rowsOf } from './support/simulated-world.js';
import { openTemporaryStore } from './support/small-world.js';

describe('what counts as an acceptance', () => {
  const shownMs = Date.UTC(2026, 0, 5, 8);
  const expiresMs = shownMs + 72 * HOUR_MS;
  type Said = readonly [type: string, afterMs: number, eventId: string, reason?: string];
  /** What was said of an offer, and what that means: 1 accepted, 0 not, undefined no label. */
  const CASES: Readonly<Record<string, { said: readonly Said[]; accepted: 0 | 1 | undefined }>> = {
    accepted: { said: [['accepted', HOUR_MS, 'b']], accepted: 1 },
    accepted_then_withdrawn: {
      said: [
        ['accepted', HOUR_MS, 'b'],
        ['withdrawn', HOUR_MS + 1, 'a', 'budget'],
      ],
      accepted: 1,
    },
    accepted_and_withdrawn_at_once: {
      said: [
        ['withdrawn', HOUR_MS, 'a', 'budget'],
        ['accepted', HOUR_MS, 'b'],
      ],
      accepted: 1,
    },
    declined_and_withdrawn_at_once: {
      said: [
        ['withdrawn', HOUR_MS, 'a', 'budget'],
        ['declined', HOUR_MS, 'b'],
      ],
      accepted: 0,
    },
    accepted_in_the_last_moment: {
      said: [
        ['expired', 72 * HOUR_MS, 'a'],
        ['accepted', 72 * HOUR_MS, 'b'],
      ],
      accepted: 1,
    },
    withdrawn_unanswered: {
      said: [['withdrawn', HOUR_MS, 'a', 'budget']],
      accepted: undefined,
    },
    withdrawn_then_accepted: {
      said: [
        ['withdrawn', HOUR_MS, 'b', 'budget'],
        ['accepted', HOUR_MS + 1, 'a'],
      ],
      accepted: undefined,
    },
    withdrawn_after_running_out: {
      said: [['withdrawn', 72 * HOUR_MS + 1, 'a', 'budget']],
      accepted: 0,
    },
    unanswered: { said: [], accepted: 0 },
  };

  let opened: Awaited<ReturnType<typeof openTemporaryStore>>;
  const tenantId = 'ten_offers';
  beforeAll(async () => {
    opened = await openTemporaryStore();
    const event = (offer: string, type: string, ms: number, id: string, reason = '') => ({
      tenant_id: tenantId,
      event_id: `evt_${offer}_${id}`,
      type: `offer.${type}`,
      ts: new Date(ms).toISOString(),
      offer_id: offer,
      publication_id: 'pub_1',
      campaign_id: 'cmp_1',
      creative_id: '',
      post_id: '',
      slot_id: '',
      pricing: 'cpc',
      price_micros: 1_000_000,
      est_payout_micros: 20_000_000,
      menu_size: 5,
      rank: 1,
      propensity: 0.5,
      decision_id: '',
      reason,
      expires_at: new Date(expiresMs).toISOString(),
    });
    await opened.store.insert(
      'offers',
      Object.entries(CASES).flatMap(([offer, { said }]) => [
        event(offer, 'shown', shownMs, 'shown'),
        ...said.map(([type, after, id, reason]) => event(offer, type, shownMs + after, id, reason)),
      ]),
    );
  });
  afterAll(() => opened?.close());

  test('is the first answer: a withdrawal that follows a yes does not take it back, one that comes first leaves no label', async () => {
    const rows = await buildDataset(opened.store, acceptFeatures, {
      tenantId,
      fromMs: shownMs,
      toMs: expiresMs,
      asOfMs: expiresMs + HOUR_MS,
      embeddingModel: 'none',
    });
    const found: Record<string, number> = {};
    rows.successes.forEach((accepted, i) => {
      found[stringAt(rows.rowIds, i)] = accepted;
    });
    expect(found).toEqual(
      Object.fromEntries(
        Object.entries(CASES).flatMap(([offer, { accepted }]) =>
          accepted === undefined ? [] : [[offer, accepted]],
        ),
      ),
    );
  });

  test('is the same to those who ask for every answer', async () => {
    const { nRows, offers, answers } = await buildOfferAnswers(opened.store, {
      tenantId,
      asOfMs: expiresMs + HOUR_MS,
    });
    for (let i = 0; i < nRows; i++) {
      const { accepted } = CASES[stringAt(offers, i)]!;
      expect(OFFER_ANSWERS[answers[i]!] === 'accepted').toBe(accepted === 1);
    }
    const labelled = Object.values(CASES).filter(({ accepted }) => accepted !== undefined);
    expect(nRows).toBe(labelled.length);
  });
});

describe('of a simulated network whose money runs out', () => {
  let loaded: LoadedWorld;
  beforeAll(async () => {
    loaded = await loadSimulatedWorld(
      { scale: 'ci', seed: 5, overrides: { publications: 250, campaigns: 12 } },
      ['publications', 'campaigns', 'creatives', 'offers', 'placements', 'sends'],
    );
  }, 60_000);
  afterAll(() => loaded?.close());

  test('labels say yes as often as publishers do', async () => {
    const { store, range, world } = loaded;
    const chance = new Map(
      [...world.truth.offers.rows<{ offer_id: string; p_accept: number }>()].map((row) => [
        row.offer_id,
        row.p_accept,
      ]),
    );
    const rows = await buildDataset(store, acceptFeatures, { ...range, embeddingModel: 'none' });
    const withdrawn = new Set(
      rowsOf(world, 'offers').flatMap((o) =>
        o['type'] === 'offer.withdrawn' && Date.parse(String(o['expires_at'])) <= range.asOfMs
          ? [String(o['offer_id'])]
          : [],
      ),
    );
    expect(withdrawn.size).toBeGreaterThan(30);
    let expected = 0;
    let variance = 0;
    let accepted = 0;
    for (let i = 0; i < rows.nRows; i++) {
      const id = stringAt(rows.rowIds, i);
      if (withdrawn.delete(id)) expect(rows.successes[i]).toBe(1);
      const p = chance.get(id)!;
      expected += p;
      variance += p * (1 - p);
      accepted += rows.successes[i]!;
    }
    expect(Math.abs(accepted - expected)).toBeLessThan(3 * Math.sqrt(variance));
    // A yes that could not be paid is a row like any other.
    expect(withdrawn.size).toBe(0);
  }, 60_000);
});
