import { manualClock, silentLogger, stringData } from '@waggle/core';
import { buildSnapshot, ctrFeatures } from '@waggle/features';
import { logit, sealLinearModel, sigmoid, withSelection } from '@waggle/ranking';
import { releaseInMemory } from '@waggle/releases';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  loadClickRelease,
  loadRankingRelease,
  type RankingRelease,
  rankingReleaseFiles,
  replay,
  scoreRanAds,
} from '../src/index.js';
import { engineOn } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld, texts, wigglyModel } from './support/world.js';

const SELECTION = { level: -0.04, edge: -0.3 };

let world: TestWorld;
let plain: RankingRelease;
let corrected: RankingRelease;

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny' });
  const { models } = world.input;
  const { pctr } = models;
  if (pctr.kind !== 'linear_logistic') throw new Error('the test world serves a linear model');
  const pctrModel = wigglyModel(pctr, sealLinearModel);
  plain = await world.release({ models: { ...models, pctr: pctrModel } });
  const withIt = withSelection(pctrModel, SELECTION);
  corrected = await world.release({ models: { ...models, pctr: withIt } });
});
afterAll(() => world?.close());

/** The publication with the most candidates. */
function busiest(release: RankingRelease): string {
  const count = (id: string) => rank(release, id).answer.n_eligible;
  return release.publications.ids.reduce((most, id) => (count(id) > count(most) ? id : most));
}

function rank(release: RankingRelease, publication_id: string) {
  const clock = manualClock(release.asOfMs);
  const { engine, decisions } = engineOn(release, clock);
  // Everybody who may run, whatever it pays and whoever else is shown.
  const request = {
    mode: 'offers' as const,
    publication_id,
    k: 100,
    explain: 'full' as const,
    slots: [{ id: 'slt_1', n_forecast: 1_000_000 }],
    constraints: { separation: false, max_per_advertiser: 100 },
  };
  const answer = engine.rank(request, {
    tenantId: TENANT,
    requestId: 'req_1',
    receivedAtMs: clock.monotonicMs(),
  });
  if (answer instanceof Promise) throw new Error('offers wait for nothing');
  return { answer, decisions };
}

describe('a release with a correction for selection', () => {
  test('promises what the model says, corrected among all candidates of the slot; terms still sum to the score', async () => {
    const publication = busiest(plain);
    const before = rank(plain, publication).answer;
    const { answer, decisions } = rank(corrected, publication);
    expect(answer.n_eligible).toBe(before.n_eligible);
    expect(answer.items.length).toBe(answer.n_eligible);
    expect(answer.items.length).toBeGreaterThan(3);
    expect(corrected.versions.calibration).toContain('selection');
    expect(plain.versions.calibration).not.toContain('selection');

    const logits = new Map(
      before.items.map((item) => [item.campaign_id, logit(item.explain!.p_click)]),
    );
    const mean = [...logits.values()].reduce((sum, z) => sum + z, 0) / logits.size;
    for (const item of answer.items) {
      const z = logits.get(item.campaign_id)!;
      const expected = sigmoid(z + SELECTION.level + SELECTION.edge * (z - mean));
      // Both are given to nine decimals.
      expect(Math.abs(item.explain!.p_click - expected)).toBeLessThan(1e-8);
      const total = Object.values(item.explain!.terms).reduce((sum, term) => sum + term, 0);
      expect(item.score).toBe(total);
    }
    expect((await replay(decisions.last, corrected)).differences).toEqual([]);
  });

  test('ads that ran are scored as the model says, beside the candidates that the release has for their slot', () => {
    const publication = busiest(plain);
    const { items } = rank(plain, publication).answer;
    const ads = items.map((item) => ({
      publicationId: publication,
      campaignId: item.campaign_id,
      creativeId: item.creative_id,
      tsMs: plain.asOfMs,
      position: 1,
      nAds: 1,
    }));
    const { logits, advantage } = scoreRanAds(plain, ads);
    const served = items.map((item) => logit(item.explain!.p_click));
    const mean = served.reduce((sum, z) => sum + z, 0) / served.length;
    served.forEach((z, i) => {
      expect(logits[i]).toBeCloseTo(z, 4);
      expect(advantage[i]).toBeCloseTo(z - mean, 4);
    });
    // A correction is fitted on what comes before it.
    expect(scoreRanAds(corrected, ads).logits).toEqual(logits);
  });

  test('a release without p(accept) and its features says the same of ads that ran, and is not for ranking', async () => {
    const { accept: _, ...models } = world.input.models;
    const ids = {
      publications: [...plain.publications.ids],
      campaigns: [...plain.campaigns.ids],
      creatives: [...plain.creativeIds],
      advertisers: texts(stringData(world.catalog.advertisers, 'advertiser_id')),
    };
    const snapshot = await buildSnapshot(world.store, [ctrFeatures], {
      ...{ tenantId: TENANT, asOfMs: world.asOfMs, ids, embeddingModel: 'test' },
    });
    const files = rankingReleaseFiles({
      ...{ ...world.input, snapshot },
      models: { ...models, pctr: plain.pctr.model },
    });
    const release = releaseInMemory(files, world.asOfMs);
    const clicks = await loadClickRelease(release, { logger: silentLogger });
    const ads = ids.publications.flatMap((publicationId, p) =>
      ids.campaigns.slice(p % 7, (p % 7) + 5).map((campaignId) => {
        const row = ids.campaigns.indexOf(campaignId);
        const { creativeOffsets, creativeRows } = plain.campaigns;
        const creativeRow = creativeRows[creativeOffsets[row]!] ?? 0;
        return {
          ...{ publicationId, campaignId, creativeId: ids.creatives[creativeRow]! },
          ...{ tsMs: plain.asOfMs + p * 3_600_000, position: 1 + (p % 3), nAds: 3 },
        };
      }),
    );
    expect(ads.length).toBeGreaterThan(100);
    // To the bit.
    expect(scoreRanAds(clicks, ads)).toEqual(scoreRanAds(plain, ads));
    await expect(loadRankingRelease(release, { logger: silentLogger })).rejects.toMatchObject({
      code: expect.stringMatching(/^WAGGLE_RELEASE_/),
    });
  });

  test('ads that the release does not know have no score', () => {
    const ad = {
      publicationId: plain.publications.ids[0]!,
      campaignId: plain.campaigns.ids[0]!,
      creativeId: plain.creativeIds[0]!,
      tsMs: plain.asOfMs,
      position: 1,
      nAds: 1,
    };
    const { logits, advantage } = scoreRanAds(plain, [
      { ...ad, publicationId: 'pub_other' },
      { ...ad, campaignId: 'cmp_other' },
      { ...ad, creativeId: 'cre_other' },
      ad,
    ]);
    expect(Array.from(logits, Number.isNaN)).toEqual([true, true, true, false]);
    expect(Array.from(advantage, Number.isNaN)).toEqual([true, true, true, false]);
    expect(ctrFeatures.names).toEqual(expect.arrayContaining(['position', 'n_ads']));
  });
});
