import { manualClock, silentLogger, stringData } from '@waggle/core';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import { acceptFeatures, ctrFeatures } from '@waggle/features';
import { logit, priorOnlyModel, sealLinearModel, sigmoid, withSelection } from '@waggle/ranking';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  loadRankingRelease,
  parsePolicy,
  type RankingRelease,
  rankingReleaseFiles,
  replay,
} from '../src/index.js';
import { HeldRunner, networkFor } from './support/network.js';
import { engineOn } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld, texts, wigglyModel } from './support/world.js';

const CUT = 10;
const SELECTION = { level: -0.04, edge: -0.3 };

let world: TestWorld;
/** Scores every eligible campaign. */
let whole: RankingRelease;
/** The same release, except that it scores ten at once. */
let cut: RankingRelease;
let publication: string;
/** Eligible for it, best first. */
let eligible: RankResponseBody['items'];

/** As many ads per send as the test wants. */
async function released(policy: object, selection?: typeof SELECTION): Promise<RankingRelease> {
  const { publications } = world.catalog;
  const sixteen = new Float64Array(publications.nRows).fill(16);
  const pctr = wigglyModel(priorOnlyModel(ctrFeatures), sealLinearModel);
  return world.release({
    policy: parsePolicy({ epsilon: 0, ...policy }),
    catalog: {
      ...world.catalog,
      publications: {
        ...publications,
        columns: {
          ...publications.columns,
          max_ads_per_send: { kind: 'numeric', dtype: 'f64', width: 1, data: sixteen },
        },
      },
    },
    models: {
      pctr: selection === undefined ? pctr : withSelection(pctr, selection),
      accept: wigglyModel(priorOnlyModel(acceptFeatures), sealLinearModel),
    },
  });
}

function serve(release: RankingRelease, monotonicMs = () => 0) {
  const clock = { ...manualClock(world.asOfMs), monotonicMs };
  const parts = engineOn(release, clock);
  const rank = (request: Partial<RankRequestBody>, requestId = 'req_1') =>
    parts.engine.rank(
      {
        ...{ mode: 'offers', publication_id: publication, explain: 'summary', ...request },
        constraints: { separation: false, max_per_advertiser: 100, ...request.constraints },
      } as RankRequestBody,
      { tenantId: TENANT, requestId, receivedAtMs: 0 },
    );
  const offers = (request: Partial<RankRequestBody>, requestId?: string) =>
    rank(request, requestId) as RankResponseBody;
  return { ...parts, rank, offers };
}

const idsOf = ({ items }: Pick<RankResponseBody, 'items'>) => items.map((i) => i.campaign_id);

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny', seed: 3, overrides: { campaigns: 80 } });
  whole = await released({});
  cut = await released({ max_scored: CUT });
  publication = '';
  const { offers } = serve(whole);
  let most = 2 * CUT;
  for (const publication_id of whole.publications.ids) {
    const answer = offers({ publication_id, k: 100 });
    if (answer.n_eligible > most) {
      most = answer.n_eligible;
      publication = publication_id;
      eligible = answer.items;
    }
  }
  expect(eligible).toHaveLength(most);
});
afterAll(() => world?.close());

describe('a request whose restrictions leave campaigns that the cut of the candidates did not', () => {
  test('finds each of them when it asks for it alone, with the numbers of a release that cuts nothing', () => {
    const { offers } = serve(cut);
    const all = serve(whole);
    for (const { campaign_id } of eligible) {
      const alone = { k: 1, constraints: { candidates: [campaign_id] } };
      const { items, n_eligible } = offers(alone);
      expect(n_eligible).toBe(1);
      expect(items).toEqual(all.offers(alone).items);
      expect(items).toHaveLength(1);
    }
  });

  test('ranks as many as are scored at once, and all where restrictions leave fewer', () => {
    const { offers } = serve(cut);
    const all = serve(whole);
    // Menus of one length, so that p(accept) is the same function.
    const best = { k: CUT };
    const shared = idsOf(offers(best));
    expect(shared).toHaveLength(CUT);
    const next = offers({ ...best, constraints: { exclude_campaigns: shared } });
    expect(next.n_eligible).toBe(eligible.length - CUT);
    expect(next.items).toHaveLength(CUT);
    expect(next.filtered.excluded).toBe(CUT);
    for (const id of idsOf(next)) expect(shared).not.toContain(id);
    for (const n of [CUT - 1, CUT]) {
      const candidates = idsOf({ items: eligible.slice(-n) });
      const asked = { ...best, constraints: { candidates } };
      expect(offers(asked).items).toEqual(all.offers(asked).items);
      expect(offers(asked).items).toHaveLength(n);
    }
    // Whoever has a campaign in the cut, blocked by name.
    const advertisers = texts(stringData(world.catalog.campaigns, 'advertiser_id'));
    const advertiserOf = (id: string) => advertisers[cut.eligibility.rowOf(id)!]!;
    const badv = [...new Set(shared.map(advertiserOf))];
    const others = eligible.filter(({ campaign_id: id }) => !badv.includes(advertiserOf(id)));
    expect(others.length).toBeGreaterThan(0);
    const unblocked = offers({ ...best, constraints: { badv } });
    expect(unblocked.n_eligible).toBe(others.length);
    expect(unblocked.items).toHaveLength(Math.min(CUT, others.length));
  });

  test('keeps the candidates that the cut has, at their own scores, and fills the places of the others', () => {
    const { offers } = serve(cut);
    const shared = offers({ k: CUT });
    const [gone, ...stay] = shared.items;
    const answer = offers({ k: CUT, constraints: { exclude_campaigns: [gone!.campaign_id] } });
    expect(answer.items).toHaveLength(CUT);
    for (const item of stay) {
      const same = answer.items.find((i) => i.campaign_id === item.campaign_id);
      expect(same).toEqual({ ...item, rank: same!.rank });
    }
  });

  test('has no slot left empty while campaigns remain', async () => {
    const { rank } = serve(cut);
    const shared = idsOf(serve(cut).offers({ k: CUT }));
    const slots = Array.from({ length: CUT + 4 }, (_, i) => ({ id: `s${i}` }));
    const filled = await rank({ mode: 'fill', slots });
    expect(new Set(idsOf(filled)).size).toBe(slots.length);
    expect(filled.degraded).not.toContain('partial_fill');
    const rest = await rank({
      mode: 'fill',
      slots: [{ id: 's' }],
      constraints: { exclude_campaigns: shared },
    });
    expect(rest.items).toHaveLength(1);
  });

  test('explores all that it may show, as often as the propensities say, and is replayed', async () => {
    const epsilon = 0.5;
    const curious = await released({ epsilon, max_scored: CUT });
    const { rank, offers, decisions } = serve(curious);
    const candidates = idsOf({ items: eligible.slice(-6) });
    const first = new Map<string, number>();
    const DRAWS = 4_000;
    let greedy = '';
    for (let i = 0; i < DRAWS; i++) {
      const { items } = offers({ k: 2, constraints: { candidates } }, `req_${i}`);
      const [item] = items;
      first.set(item!.campaign_id, (first.get(item!.campaign_id) ?? 0) + 1 / DRAWS);
      const chance = item!.propensity;
      if (chance > epsilon) greedy = item!.campaign_id;
      expect(chance).toBeCloseTo((chance > epsilon ? epsilon : 0) + epsilon / 6, 12);
    }
    expect([...first.keys()].sort()).toEqual([...candidates].sort());
    // Four standard errors of a share near 0.5.
    for (const [id, share] of first) {
      const chance = (id === greedy ? 1 - epsilon : 0) + epsilon / 6;
      expect(Math.abs(share - chance)).toBeLessThan(0.032);
    }
    for (let i = 0; i < 8; i++) {
      const exclude_campaigns = idsOf({ items: eligible.slice(i, i + 7) });
      const slots = [{ id: 'a' }, { id: 'b' }, { id: 'c' }];
      await rank({ mode: 'fill', slots, constraints: { exclude_campaigns } }, `fill_${i}`);
    }
    for (const row of decisions.rows.slice(-20)) {
      expect((await replay(row, curious)).differences).toEqual([]);
    }
  });

  test('passes over campaigns without money', () => {
    const { offers, ledger } = serve(cut);
    const candidates = idsOf({ items: eligible });
    const before = offers({ k: 100, constraints: { candidates } });
    for (const id of idsOf(before)) ledger.set(id, 0);
    const after = offers({ k: 100, constraints: { candidates } });
    expect(after.items).toHaveLength(Math.min(CUT, eligible.length - CUT));
    expect(after.filtered.budget).toBeGreaterThanOrEqual(CUT);
  });

  test('corrects for selection beside the candidates that everybody has', async () => {
    const corrected = await released({ max_scored: CUT }, SELECTION);
    const raw = serve(cut);
    const { offers, decisions } = serve(corrected);
    const z = (answer: RankResponseBody) =>
      answer.items.map(({ explain }) => logit(explain!.p_click));
    const shared = z(raw.offers({ k: CUT }));
    const mean = shared.reduce((sum, each) => sum + each, 0) / shared.length;
    for (const { campaign_id } of eligible) {
      const alone = { constraints: { candidates: [campaign_id] } };
      const [before] = z(raw.offers(alone));
      const { items } = offers(alone);
      const expected = sigmoid(before! + SELECTION.level + SELECTION.edge * (before! - mean));
      expect(Math.abs(items[0]!.explain!.p_click - expected)).toBeLessThan(1e-8);
    }
    expect((await replay(decisions.last, corrected)).differences).toEqual([]);
  });

  test('falls back to prior rates for all of its candidates when time is up', async () => {
    let slow = false;
    let looks = 0;
    const { offers, decisions } = serve(cut, () => (slow && looks++ > 0 ? 1_000 : 0));
    const candidates = idsOf({ items: eligible.slice(-CUT) });
    offers({ k: CUT });
    slow = true;
    const restricted = { k: CUT, constraints: { candidates } };
    const answer = offers(restricted);
    expect(answer.degraded).toContain('deadline_prior');
    expect(answer.items).toHaveLength(CUT);
    for (const { explain } of answer.items) expect(explain!.p_accept).toBeCloseTo(0.3, 6);
    slow = false;
    expect(offers(restricted).degraded).not.toContain('deadline_prior');
    for (const row of decisions.rows) expect((await replay(row, cut)).differences).toEqual([]);
  });
});

describe('where a network scores', () => {
  const opened: RankingRelease[] = [];
  afterEach(async () => {
    for (const release of opened.splice(0)) await release.networks?.close();
  });

  async function network(runner: HeldRunner): Promise<RankingRelease> {
    const { models, ...rest } = world.input;
    const files = rankingReleaseFiles({
      ...rest,
      policy: parsePolicy({ epsilon: 0, max_scored: CUT }),
      models: { ...models, imported: { pctr: await networkFor() } },
    });
    const { id } = await world.releases.create(files);
    const release = await loadRankingRelease(await world.releases.open(id), {
      logger: silentLogger,
      networkRunner: () => runner,
    });
    opened.push(release);
    return release;
  }

  test('it is asked about the candidates that the cut lacks', async () => {
    const runner = new HeldRunner();
    const release = await network(runner);
    const { rank, ledger, decisions } = serve(release);
    const shared = idsOf(await rank({ k: CUT, deadline_ms: 10_000 }));
    const without = {
      ...{ k: CUT, deadline_ms: 10_000 },
      constraints: { exclude_campaigns: shared },
    };
    const answer = await rank(without);
    expect(answer.degraded).toEqual(['prior_only_model']);
    expect(answer.items).toHaveLength(CUT);
    for (const id of idsOf(answer)) expect(shared).not.toContain(id);
    // Money that goes meanwhile makes it another set.
    runner.hold();
    const asked = rank(without);
    await new Promise((resolve) => setImmediate(resolve));
    const broke = idsOf(answer).slice(0, 2);
    for (const id of broke) ledger.set(id, 0);
    runner.open();
    const again = await asked;
    expect(again.degraded).toEqual(['prior_only_model']);
    expect(again.items.length).toBeGreaterThan(0);
    for (const id of idsOf(again)) expect(broke).not.toContain(id);
    const slots = Array.from({ length: 2 }, (_, i) => ({ id: `s${i}` }));
    await rank({ mode: 'fill', slots, deadline_ms: 10_000, constraints: without.constraints });
    for (const row of decisions.rows) expect((await replay(row, release)).differences).toEqual([]);
  });

  test('and fails: prior rates stand in for all of them', async () => {
    const runner = new HeldRunner();
    const release = await network(runner);
    const { rank, decisions } = serve(release);
    const shared = idsOf(await rank({ k: CUT, deadline_ms: 10_000 }));
    runner.failure = new Error('no memory');
    const { degraded, items } = await rank({
      ...{ k: CUT, deadline_ms: 10_000 },
      constraints: { exclude_campaigns: shared.slice(1) },
    });
    expect(degraded).toEqual(['prior_only_model', 'onnx_unavailable']);
    expect(idsOf({ items })).toContain(shared[0]);
    for (const { explain } of items) expect(explain!.p_accept).toBeCloseTo(0.3, 6);
    runner.failure = undefined;
    for (const row of decisions.rows) expect((await replay(row, release)).differences).toEqual([]);
  });
});
