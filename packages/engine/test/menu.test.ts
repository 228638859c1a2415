import { manualClock, silentLogger } from '@waggle/core';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import { acceptFeatures, ctrFeatures } from '@waggle/features';
import { priorOnlyModel, sealLinearModel } from '@waggle/ranking';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  loadRankingRelease,
  parsePolicy,
  type RankingRelease,
  type RankingReleaseInput,
  rankingReleaseFiles,
  replay,
} from '../src/index.js';
import { HeldRunner, networkFor } from './support/network.js';
import { engineOn } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld, wigglyModel } from './support/world.js';

let world: TestWorld;
/** Scores every eligible campaign. */
let whole: RankingRelease;
/** The same release, except that it scores ten at once. */
let cut: RankingRelease;
let publication: string;
/** Eligible for it, best first, on a menu of all. */
let eligible: string[];

const modelsOf = (): RankingReleaseInput['models'] => ({
  pctr: wigglyModel(priorOnlyModel(ctrFeatures), sealLinearModel),
  accept: wigglyModel(priorOnlyModel(acceptFeatures), sealLinearModel),
});

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny', seed: 3, overrides: { campaigns: 80 } });
  whole = await world.release({ policy: parsePolicy({ epsilon: 0 }), models: modelsOf() });
  cut = await world.release({
    policy: parsePolicy({ epsilon: 0, max_scored: 10 }),
    models: modelsOf(),
  });
  const { offers } = serve(whole);
  let most = 20;
  for (const publication_id of whole.publications.ids) {
    const answer = offers({ publication_id, k: 100 });
    if (answer.n_eligible > most) {
      most = answer.n_eligible;
      publication = publication_id;
      eligible = answer.items.map((item) => item.campaign_id);
    }
  }
  expect(eligible).toHaveLength(most);
});
afterAll(() => world?.close());

function serve(release: RankingRelease, monotonicMs = () => 0) {
  const clock = { ...manualClock(world.asOfMs), monotonicMs };
  const parts = engineOn(release, clock);
  const rank = (request: Partial<RankRequestBody>) =>
    parts.engine.rank(
      {
        ...{ mode: 'offers', publication_id: publication, explain: 'summary', ...request },
        constraints: { separation: false, ...request.constraints },
      } as RankRequestBody,
      { tenantId: TENANT, requestId: 'req_1', receivedAtMs: 0 },
    );
  const offers = (request: Partial<RankRequestBody>) => rank(request) as RankResponseBody;
  return { ...parts, rank, offers };
}

type Item = RankResponseBody['items'][number];

const creativeRow = (release: RankingRelease, { creative_id }: Item) =>
  release.creativeIds.indexOf(creative_id);

/** What the model says of one offer on a menu of so many, from its features alone. */
function byHand(release: RankingRelease, item: Item, menuSize: number): number {
  const { features } = release.accept;
  const campaign = release.campaigns.ids.indexOf(item.campaign_id);
  const publicationRow = release.publications.ids.indexOf(publication);
  const x = new Float32Array(features.nFeatures);
  const bid = release.campaigns.bidMicros[campaign]!;
  const delivered = release.publications.deliveredPerSend[publicationRow]!;
  const openRate = release.publications.eligibleOpenRate[publicationRow]!;
  const spend = {
    cpc: bid * delivered * item.explain!.p_click,
    cpm: (bid * delivered * openRate) / 1000,
    flat: bid,
  }[item.pricing];
  features.evaluate(
    {
      ...{ publicationRow, tsMs: world.asOfMs, position: 1, nAds: 1, menuSize },
      priceMicros: Float64Array.of(bid),
      estPayoutMicros: Float64Array.of((1 - release.policy.take_rate) * spend),
      rank: Float64Array.of((menuSize + 1) / 2),
    },
    Int32Array.of(campaign),
    Int32Array.of(creativeRow(release, item)),
    x,
  );
  if (release.accept.network !== undefined) throw new Error('a network is asked elsewhere');
  return release.accept.scoreRows(x, 1)[0]!;
}

function expectMenu(release: RankingRelease, items: readonly Item[], menuSize: number): void {
  expect(items.length).toBeGreaterThan(0);
  for (const item of items) {
    const { p_accept: p } = item.explain!;
    expect(Math.abs(p - byHand(release, item, menuSize))).toBeLessThan(1e-6);
    // The length of the menu is heard at all.
    expect(Math.abs(p - byHand(release, item, menuSize + 1))).toBeGreaterThan(1e-5);
  }
}

describe('acceptance is judged on the menu that the publisher sees', () => {
  test('one named campaign is a menu of one, however many are asked for, whether or not others were scored', async () => {
    for (const release of [whole, cut]) {
      const { offers, decisions } = serve(release);
      for (const warm of [false, true]) {
        if (warm) offers({ k: 10 });
        for (const id of [eligible[0]!, eligible.at(-1)!]) {
          for (const k of [1, 10]) {
            const { items } = offers({ k, constraints: { candidates: [id] } });
            expect(items.map((item) => item.campaign_id)).toEqual([id]);
            expectMenu(release, items, 1);
          }
        }
      }
      for (const row of decisions.rows) {
        expect((await replay(row, release)).differences).toEqual([]);
      }
    }
  });

  test('k offers of many are a menu of k, for those who ask after others, too', () => {
    for (const release of [whole, cut]) {
      const { offers } = serve(release);
      for (const k of [10, 3, 1, 7, 5, 2, 10]) expectMenu(release, offers({ k }).items, k);
    }
    expectMenu(cut, serve(cut).offers({ k: 20 }).items, 10);
  });

  test('what is excluded, cannot pay or pays too little is not on it', async () => {
    for (const release of [whole, cut]) {
      const { offers, ledger, decisions } = serve(release);
      const candidates = eligible.slice(-5);
      const named = offers({ k: 10, constraints: { candidates } });
      expectMenu(release, named.items, 5);
      const four = { candidates, exclude_campaigns: candidates.slice(0, 1) };
      expectMenu(release, offers({ k: 10, constraints: four }).items, 4);
      const spends = named.items.map((item) => item.explain!.e_spend).sort((a, b) => a - b);
      const floor_micros = Math.round((0.7 * (spends[2]! + spends[3]!)) / 2);
      const dear = { slots: [{ id: 's', floor_micros }], constraints: { candidates } };
      expectMenu(release, offers({ k: 10, ...dear }).items, 2);
      // Some money, but not for a send; and none at all.
      ledger.set(candidates[1]!, 1);
      ledger.set(candidates[2]!, 0);
      expectMenu(release, offers({ k: 10, constraints: { candidates } }).items, 3);
      for (const row of decisions.rows) {
        expect((await replay(row, release)).differences).toEqual([]);
      }
    }
  });

  test('without time for a menu of another length, average rates stand in for clicks and acceptances', async () => {
    for (const release of [whole, cut]) {
      let slow = false;
      let looks = 0;
      const { offers, decisions } = serve(release, () => (slow && looks++ > 0 ? 1_000 : 0));
      offers({ k: 10 });
      slow = true;
      expect(offers({ k: 10 }).degraded).not.toContain('deadline_prior');
      looks = 0;
      const late = offers({ k: 4 });
      expect(late.degraded).toContain('deadline_prior');
      expect(late.items).toHaveLength(4);
      for (const { explain } of late.items) expect(explain!.p_accept).toBeCloseTo(0.3, 6);
      slow = false;
      expectMenu(release, offers({ k: 4 }).items, 4);
      for (const row of decisions.rows) {
        expect((await replay(row, release)).differences).toEqual([]);
      }
    }
  });
});

test('a network is asked about the menu that the publisher sees, once for those with one question', async () => {
  const accept = await networkFor(acceptFeatures, {
    ...{ name: 'accept_network', bias: -0.2, heeds: 'menu_size' },
  });
  const runner = new HeldRunner();
  const files = rankingReleaseFiles({
    ...world.input,
    policy: parsePolicy({ epsilon: 0, max_scored: 10 }),
    models: { ...modelsOf(), imported: { accept } },
  });
  const { id } = await world.releases.create(files);
  const release = await loadRankingRelease(await world.releases.open(id), {
    logger: silentLogger,
    networkRunner: () => runner,
  });
  try {
    const { rank, decisions } = serve(release);
    const acceptOf = async (request: Partial<RankRequestBody>) =>
      (await rank({ deadline_ms: 10_000, ...request })).items[0]!.explain!.p_accept;
    const last = eligible.at(-1)!;
    const alone = { constraints: { candidates: [last] } };
    const one = await acceptOf({ k: 1, ...alone });
    expect(await acceptOf({ k: 10, ...alone })).toBe(one);
    const beside = { candidates: eligible.slice(-4) };
    const four = await rank({ k: 10, constraints: beside, deadline_ms: 10_000 });
    const same = four.items.find((item) => item.campaign_id === last)!;
    expect(Math.abs(same.explain!.p_accept - one)).toBeGreaterThan(1e-3);
    // Everybody's candidates are known; asked again, nothing is asked.
    await rank({ k: 6, deadline_ms: 10_000 });
    const { runs } = runner;
    runner.hold();
    const five = async () => rank({ k: 5, deadline_ms: 10_000 });
    const both = Promise.all([five(), five()]);
    await new Promise((resolve) => setImmediate(resolve));
    runner.open();
    const [first, second] = await both;
    expect(first!.items).toEqual(second!.items);
    expect(runner.runs).toBe(runs + 1);
    for (const row of decisions.rows) {
      expect((await replay(row, release)).differences).toEqual([]);
    }
  } finally {
    await release.networks?.close();
  }
});
