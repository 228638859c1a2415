import { manualClock, silentLogger, stringData } from '@waggle/core';
import type { RankResponseBody } from '@waggle/core/contract';
import { buildSnapshot, ctrFeatures } from '@waggle/features';
import { InlineRunner } from '@waggle/models';
import { logit, sealLinearModel, sigmoid, withSelection } from '@waggle/ranking';
import { releaseInMemory } from '@waggle/releases';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type ImportedModel,
  loadClickRelease,
  loadRankingRelease,
  parsePolicy,
  type RankingRelease,
  rankingReleaseFiles,
  replay,
  scoreRanAds,
} from '../src/index.js';
import { networkFor } from './support/network.js';
import { engineOn } from './support/ports.js';
import { treesFor } from './support/trees.js';
import { openTestWorld, TENANT, type TestWorld, texts, wigglyModel } from './support/world.js';

const SELECTION = { level: -0.04, edge: -0.3 };
/** A list that explores holds one ad of each advertiser, not every candidate. */
const policy = parsePolicy({ epsilon: 0 });

let world: TestWorld;
let plain: RankingRelease;
let corrected: RankingRelease;

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny' });
  const { models } = world.input;
  const { pctr } = models;
  if (pctr.kind !== 'linear_logistic') throw new Error('the test world serves a linear model');
  const pctrModel = wigglyModel(pctr, sealLinearModel);
  plain = await world.release({ policy, models: { ...models, pctr: pctrModel } });
  const withIt = withSelection(pctrModel, SELECTION);
  corrected = await world.release({ policy, models: { ...models, pctr: withIt } });
});
afterAll(() => world?.close());

/** The publication with the most candidates. */
async function busiest(release: RankingRelease): Promise<string> {
  const counts: [number, string][] = [];
  for (const id of release.publications.ids) {
    counts.push([(await rank(release, id)).answer.n_eligible, id]);
  }
  return counts.reduce((most, next) => (next[0] > most[0] ? next : most))[1];
}

async function rank(release: RankingRelease, publication_id: string) {
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
  const answer = await engine.rank(request, {
    tenantId: TENANT,
    requestId: 'req_1',
    receivedAtMs: clock.monotonicMs(),
  });
  return { answer, decisions };
}

/** What the answers of two releases promise, and what the correction makes of it. */
function expectCorrected(before: RankResponseBody, after: RankResponseBody): void {
  expect(after.n_eligible).toBe(before.n_eligible);
  expect(after.items.length).toBe(after.n_eligible);
  expect(after.items.length).toBeGreaterThan(3);
  const logits = new Map(
    before.items.map((item) => [item.campaign_id, logit(item.explain!.p_click)]),
  );
  const mean = [...logits.values()].reduce((sum, z) => sum + z, 0) / logits.size;
  for (const item of after.items) {
    const z = logits.get(item.campaign_id)!;
    const expected = sigmoid(z + SELECTION.level + SELECTION.edge * (z - mean));
    // Both are given to nine decimals.
    expect(Math.abs(item.explain!.p_click - expected)).toBeLessThan(1e-8);
    const total = Object.values(item.explain!.terms).reduce((sum, term) => sum + term, 0);
    expect(item.score).toBe(total);
  }
}

describe('a release with a correction for selection', () => {
  test('promises what the model says, corrected among all candidates of the slot; terms still sum to the score', async () => {
    const publication = await busiest(plain);
    const before = (await rank(plain, publication)).answer;
    const { answer, decisions } = await rank(corrected, publication);
    expect(corrected.versions.calibration).toContain('selection');
    expect(plain.versions.calibration).not.toContain('selection');

    expectCorrected(before, answer);
    expect((await replay(decisions.last, corrected)).differences).toEqual([]);
  });

  test('ads that ran are scored as the model says, beside the candidates that the release has for their slot', async () => {
    const publication = await busiest(plain);
    const { items } = (await rank(plain, publication)).answer;
    const ads = items.map((item) => ({
      publicationId: publication,
      campaignId: item.campaign_id,
      creativeId: item.creative_id,
      tsMs: plain.asOfMs,
      position: 1,
      nAds: 1,
    }));
    const { logits, advantage } = await scoreRanAds(plain, ads);
    const served = items.map((item) => logit(item.explain!.p_click));
    const mean = served.reduce((sum, z) => sum + z, 0) / served.length;
    served.forEach((z, i) => {
      expect(logits[i]).toBeCloseTo(z, 4);
      expect(advantage[i]).toBeCloseTo(z - mean, 4);
    });
    // A correction is fitted on what comes before it.
    expect((await scoreRanAds(corrected, ads)).logits).toEqual(logits);
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
    expect(await scoreRanAds(clicks, ads)).toEqual(await scoreRanAds(plain, ads));
    await expect(loadRankingRelease(release, { logger: silentLogger })).rejects.toMatchObject({
      code: expect.stringMatching(/^WAGGLE_RELEASE_/),
    });
  });

  test('ads that the release does not know have no score', async () => {
    const ad = {
      publicationId: plain.publications.ids[0]!,
      campaignId: plain.campaigns.ids[0]!,
      creativeId: plain.creativeIds[0]!,
      tsMs: plain.asOfMs,
      position: 1,
      nAds: 1,
    };
    const { logits, advantage } = await scoreRanAds(plain, [
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

describe('the correction of a model of another tool', () => {
  const released = async (imported: ImportedModel) => {
    const models = { ...world.input.models, imported: { pctr: imported } };
    const networkRunner = () => new InlineRunner();
    return loadRankingRelease(await world.stored({ policy, models }), {
      ...{ logger: silentLogger, networkRunner },
    });
  };

  test.each([
    ['trees', () => treesFor()],
    ['a network', () => networkFor()],
  ])('is applied to what %s say, and its fit asks them as requests do', async (_, make) => {
    const imported = await make();
    const before = await released(imported);
    const after = await released({ ...imported, selection: SELECTION });
    expect(after.versions.calibration).toMatch(/^[a-z]+,selection\+/);
    expect(before.versions.calibration).not.toContain('selection');
    const publication = await busiest(before);
    const { answer: plainly } = await rank(before, publication);
    const { answer, decisions } = await rank(after, publication);
    expectCorrected(plainly, answer);
    expect((await replay(decisions.last, after)).differences).toEqual([]);

    const ads = plainly.items.map((item) => ({
      publicationId: publication,
      campaignId: item.campaign_id,
      creativeId: item.creative_id,
      ...{ tsMs: before.asOfMs, position: 1, nAds: 1 },
    }));
    const { logits, advantage } = await scoreRanAds(after, ads);
    const served = plainly.items.map((item) => logit(item.explain!.p_click));
    const mean = served.reduce((sum, z) => sum + z, 0) / served.length;
    served.forEach((z, i) => {
      expect(logits[i]).toBeCloseTo(z, 4);
      expect(advantage[i]).toBeCloseTo(z - mean, 4);
    });
    await before.networks?.close();
    await after.networks?.close();
  });

  test('a network that is sure of every ad gets numbers, and its fit finite ones', async () => {
    // So far below nought that a float32 probability is 0.
    const imported = { ...(await networkFor(ctrFeatures, { bias: -900 })), selection: SELECTION };
    const release = await released(imported);
    const publication = await busiest(release);
    const { items } = (await rank(release, publication)).answer;
    expect(items.length).toBeGreaterThan(3);
    for (const item of items) expect(item.explain!.p_click).toBeGreaterThan(0);
    const ads = items.map((item) => ({
      publicationId: publication,
      campaignId: item.campaign_id,
      creativeId: item.creative_id,
      ...{ tsMs: release.asOfMs, position: 1, nAds: 1 },
    }));
    const { logits, advantage } = await scoreRanAds(release, ads);
    expect([...logits, ...advantage].every(Number.isFinite)).toBe(true);
    await release.networks?.close();
  });

  test('that turns the order around is refused', async () => {
    const imported = { ...(await treesFor()), selection: { level: 0, edge: -1 } };
    await expect(released(imported)).rejects.toMatchObject({
      code: 'WAGGLE_RELEASE_UNSERVABLE',
      message: expect.stringContaining('turns the order around'),
    });
  });
});
