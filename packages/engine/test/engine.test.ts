import { type Column, manualClock, Rng, type StringColumn, silentLogger } from '@waggle/core';
import {
  type DecisionRow,
  RankRequest,
  type RankRequestBody,
  RankResponse,
  type RankResponseBody,
  SCORE_TERMS,
} from '@waggle/core/contract';
import { acceptFeatures, ctrFeatures } from '@waggle/features';
import { priorOnlyModel, sealLinearModel } from '@waggle/ranking';
import fc from 'fast-check';
import { Compile } from 'typebox/compile';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  Engine,
  type EngineOptions,
  type LedgerPort,
  parsePolicy,
  type RankingRelease,
  replay,
} from '../src/index.js';
import { MemoryDecisions, MemoryLedger, numberedIds } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld, wigglyModel } from './support/world.js';

const PLENTY = 1e15;
let world: TestWorld;
/** Prior-only models, no exploration. */
let plain: RankingRelease;
/** Models with weight on every feature, always exploring half of the time. */
let curious: RankingRelease;
let ledger: MemoryLedger;
let decisions: MemoryDecisions;
let clock: ReturnType<typeof manualClock>;

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny', seed: 3, overrides: { campaigns: 80 } });
  plain = await world.release({ policy: parsePolicy({ epsilon: 0 }) });
  curious = await world.release({
    policy: parsePolicy({ epsilon: 0.5 }),
    models: {
      pctr: wigglyModel(priorOnlyModel(ctrFeatures), sealLinearModel),
      accept: wigglyModel(priorOnlyModel(acceptFeatures), sealLinearModel),
    },
  });
});
afterAll(() => world?.close());

/** Rows of all tests so far. */
const logged: DecisionRow[] = [];
afterEach(() => void logged.push(...decisions.rows));

beforeEach(() => {
  ledger = new MemoryLedger(plain);
  ledger.setAll(PLENTY);
  decisions = new MemoryDecisions();
  clock = manualClock(world.asOfMs);
});

function engineFor(release: RankingRelease | undefined, over: Partial<EngineOptions> = {}): Engine {
  return new Engine({
    current: () => release,
    ledger,
    decisions,
    clock,
    logger: silentLogger,
    ids: numberedIds(clock),
    ...over,
  });
}

const call = (requestId = 'req_1') => ({
  tenantId: TENANT,
  requestId,
  receivedAtMs: clock.monotonicMs(),
});

function offers(
  engine: Engine,
  request: Partial<RankRequestBody>,
  requestId?: string,
): RankResponseBody {
  return engine.rank(
    { mode: 'offers', ...request, publication_id: request.publication_id ?? busy() },
    call(requestId),
  ) as RankResponseBody;
}

/** The publication with the most candidates. */
let busiest: string | undefined;
function busy(): string {
  if (busiest === undefined) {
    const engine = engineFor(plain);
    let most = -1;
    for (const publication_id of plain.publications.ids) {
      const { n_eligible } = offers(engine, { publication_id, k: 1 });
      if (n_eligible > most) {
        most = n_eligible;
        busiest = publication_id;
      }
    }
    decisions.rows.length = 0;
  }
  return busiest!;
}

const sum = (counts: Record<string, number | undefined>) =>
  Object.values(counts).reduce<number>((total, n) => total + (n ?? 0), 0);
const columnOf = (id: string) => plain.eligibility.rowOf(id)!;

describe('offers', () => {
  test('an answer follows the contract and explains itself to the last micro', () => {
    const validator = Compile(RankResponse);
    for (const release of [plain, curious]) {
      const engine = engineFor(release);
      for (const [i, publication_id] of release.publications.ids.entries()) {
        const answer = offers(engine, { publication_id, k: 7, explain: 'summary' }, `req_${i}`);
        const plainJson = JSON.parse(JSON.stringify(answer));
        expect([...validator.Errors(plainJson)]).toEqual([]);
        expect(answer.n_eligible + sum(answer.filtered)).toBe(release.campaigns.n);
        expect(answer.items.length).toBeLessThanOrEqual(Math.min(7, answer.n_eligible));
        answer.items.forEach((item, r) => {
          let total = 0;
          for (const term of SCORE_TERMS) total += item.explain!.terms[term];
          expect(item.score).toBe(total);
          expect(item.rank).toBe(r + 1);
          expect(item.propensity).toBeGreaterThan(0);
          expect(item.propensity).toBeLessThanOrEqual(1);
          const { p20_micros, p50_micros, p80_micros } = item.est_payout;
          expect(p20_micros <= p50_micros && p50_micros <= p80_micros).toBe(true);
        });
        if (release === plain) {
          const scores = answer.items.map((item) => item.score);
          expect(scores).toEqual([...scores].sort((a, b) => b - a));
        }
      }
    }
  });

  test('the margin is acceptance × take rate × expected spend, the spend is what the pricing says', () => {
    const engine = engineFor(plain);
    const { items } = offers(engine, {
      k: 100,
      explain: 'summary',
      slots: [{ id: 's', n_forecast: 10_000 }],
    });
    const row = plain.publications.rowOf.get(busy())!;
    const openRate = plain.publications.eligibleOpenRate[row]!;
    expect(items.length).toBeGreaterThan(3);
    for (const item of items) {
      const { p_click, p_accept, e_spend, fit, terms } = item.explain!;
      const bid = item.price_micros;
      const expected =
        item.pricing === 'cpc'
          ? bid * 10_000 * p_click
          : item.pricing === 'cpm'
            ? bid * 10 * openRate
            : bid;
      // p_click is given to nine decimals: about half a millionth of the usual 0.002.
      expect(Math.abs(e_spend - expected)).toBeLessThan(1 + expected * 1e-5);
      expect(Math.abs(terms.margin - 0.3 * p_accept * e_spend)).toBeLessThan(
        2 + Math.abs(terms.margin) * 1e-5,
      );
      expect(Math.abs(terms.fit - p_accept * fit * 2_000_000)).toBeLessThan(3);
      expect(item.slot_id).toBe('s');
    }
  });

  test('full explanations carry the model inputs by name, none carries nothing', () => {
    const engine = engineFor(plain);
    const full = offers(engine, { explain: 'full', k: 1 }).items[0]!;
    expect(Object.keys(full.explain!.features!)).toEqual([...ctrFeatures.names]);
    expect(1 / (1 + Math.exp(-full.explain!.features!['prior_logit_ctr']!))).toBeCloseTo(
      full.explain!.p_click,
      6,
    );
    expect(offers(engine, { k: 1 }).items[0]).not.toHaveProperty('explain');
  });

  test('no filter is ever scored around, whatever is asked', () => {
    const engine = engineFor(curious);
    const c = curious.campaigns;
    const categories = plain.publications.rules.map((r) => r.category);
    const requests = fc.record({
      publication: fc.nat(),
      k: fc.integer({ min: 1, max: 100 }),
      bcat: fc.subarray(categories.slice(0, 6)),
      excluded: fc.subarray(c.ids.slice(0, 20)),
      candidates: fc.option(fc.subarray([...c.ids], { minLength: 1 }), { nil: undefined }),
      hours: fc.integer({ min: -48, max: 24 * 30 }),
      floor: fc.constantFrom(0, 1_000_000, 20_000_000, 500_000_000),
      language: fc.constantFrom(undefined, 'en', 'de', 'xx'),
      maxPerAdvertiser: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
      separation: fc.boolean(),
      broke: fc.subarray(c.ids.slice(0, 40)),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(requests, (r) => {
        ledger.setAll(PLENTY);
        for (const id of r.broke) ledger.set(id, 0);
        const publication_id = curious.publications.ids[r.publication % curious.publications.n]!;
        const plannedMs = world.asOfMs + r.hours * 3_600_000;
        const answer = offers(
          engine,
          {
            publication_id,
            k: r.k,
            slots: [{ id: 's', floor_micros: r.floor }],
            context: {
              planned_at: new Date(plannedMs).toISOString(),
              ...(r.language === undefined ? {} : { language: r.language }),
            },
            constraints: {
              bcat: r.bcat,
              exclude_campaigns: r.excluded,
              separation: r.separation,
              ...(r.candidates === undefined ? {} : { candidates: r.candidates }),
              ...(r.maxPerAdvertiser === undefined
                ? {}
                : { max_per_advertiser: r.maxPerAdvertiser }),
            },
            explain: 'summary',
          },
          `req_${r.seed}`,
        );
        const pub = curious.publications.rowOf.get(publication_id)!;
        const rules = curious.publications.rules[pub]!;
        const atMs = Math.max(plannedMs, world.asOfMs);
        const table = world.catalog.campaigns.columns as never as Record<
          string,
          { data: Float64Array }
        >;
        const text = world.catalog.campaigns.columns as never as Record<
          string,
          { dictionary: string[]; codes: Uint32Array }
        >;
        const list = world.catalog.campaigns.columns as never as Record<
          string,
          { dictionary: string[]; codes: Uint32Array; offsets: Uint32Array }
        >;
        const listed = (name: string, row: number) => {
          const column = list[name]!;
          return [...column.codes.subarray(column.offsets[row], column.offsets[row + 1])].map(
            (code) => column.dictionary[code],
          );
        };
        const word = (name: string, row: number) =>
          text[name]!.dictionary[text[name]!.codes[row]!]!;
        const groups = new Map<number, number>();
        const perAdvertiser = new Map<number, number>();
        for (const item of answer.items) {
          const row = columnOf(item.campaign_id);
          expect(['live', 'scheduled']).toContain(word('status', row));
          expect(table['flight_start_ms']!.data[row]!).toBeLessThanOrEqual(atMs);
          expect(table['flight_end_ms']!.data[row]!).toBeGreaterThan(atMs);
          expect(r.broke).not.toContain(item.campaign_id);
          const languages = listed('target_languages', row);
          if (languages.length > 0)
            expect(languages).toContain(r.language ?? curious.publications.language[pub]);
          const targets = listed('target_categories', row);
          if (targets.length > 0) expect(targets).toContain(rules.category);
          expect([...rules.blockedCategories, ...r.bcat]).not.toContain(word('category', row));
          if (rules.allowedCategories.length > 0)
            expect(rules.allowedCategories).toContain(word('category', row));
          expect(rules.blockedAdvertisers).not.toContain(word('advertiser_id', row));
          expect(r.excluded).not.toContain(item.campaign_id);
          if (r.candidates !== undefined) expect(r.candidates).toContain(item.campaign_id);
          const floor = Math.max(r.floor, curious.publications.minPayoutMicros[pub]!);
          expect(item.explain!.e_spend * 0.7).toBeGreaterThanOrEqual(floor - 1);
          const advertiser = c.advertiser[row]!;
          const group = c.competitorGroup[row]!;
          if (r.separation && group >= 0) {
            expect(groups.get(group) ?? advertiser).toBe(advertiser);
            groups.set(group, advertiser);
          }
          perAdvertiser.set(advertiser, (perAdvertiser.get(advertiser) ?? 0) + 1);
          expect(perAdvertiser.get(advertiser)!).toBeLessThanOrEqual(r.maxPerAdvertiser ?? 100);
        }
        expect(new Set(answer.items.map((i) => i.campaign_id)).size).toBe(answer.items.length);
        expect(answer.n_eligible + sum(answer.filtered)).toBe(new Set(r.candidates ?? c.ids).size);
      }),
      { numRuns: 300 },
    );
  });

  test('the order in which candidates are listed does not matter', () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray([...plain.campaigns.ids], { minLength: 1 }),
        fc.nat(),
        (candidates, seed) => {
          for (const release of [plain, curious]) {
            const engine = engineFor(release);
            const ask = (list: string[]) =>
              offers(engine, { k: 20, constraints: { candidates: list } }, `req_${seed}`).items;
            expect(ask(candidates)).toEqual(ask([...candidates].sort()));
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test('propensities of a rank add up to one over what could stand there', () => {
    const separate = offers(engineFor(curious), { k: 1, constraints: { separation: false } });
    const n = separate.n_eligible;
    // Draw until every candidate has been seen at the first rank: each carries its own propensity.
    const seen = new Map<string, number>();
    const engine = engineFor(curious);
    for (let i = 0; i < 5_000 && seen.size < n; i++) {
      const [item] = offers(engine, { k: 1, constraints: { separation: false } }, `req_${i}`).items;
      const known = seen.get(item!.campaign_id);
      if (known !== undefined) expect(item!.propensity).toBe(known);
      seen.set(item!.campaign_id, item!.propensity);
    }
    expect(seen.size).toBe(n);
    expect([...seen.values()].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
    expect(Math.min(...seen.values())).toBeCloseTo(0.5 / n, 12);
  });

  test('a repeated request explores in the same way; another request differently', () => {
    const engine = engineFor(curious);
    const list = (id: string) =>
      offers(engine, { request_id: id, k: 5 })
        .items.map((i) => i.campaign_id)
        .join();
    expect(list('again')).toBe(list('again'));
    expect(new Set(Array.from({ length: 30 }, (_, i) => list(`req_${i}`))).size).toBeGreaterThan(3);
  });

  test('the request id of the body wins over the one of the call', () => {
    expect(offers(engineFor(plain), { request_id: 'mine' }, 'theirs').request_id).toBe('mine');
    expect(offers(engineFor(plain), {}, 'theirs').request_id).toBe('theirs');
  });

  test('takes a menu to be no longer than its candidates, however many are asked for', async () => {
    const ten = await world.release({ policy: parsePolicy({ epsilon: 0, max_scored: 10 }) });
    const asked = (k: number) => offers(engineFor(ten), { k, explain: 'summary' });
    const { items } = asked(100);
    expect(items.length).toBeGreaterThan(3);
    expect(asked(20).items).toEqual(items);
    // Nor are two offers one.
    expect(asked(1).items[0]!.explain!.p_accept).not.toBe(items[0]!.explain!.p_accept);
  });

  test('raising a click price never lowers a campaign', async () => {
    const catalog = world.catalog.campaigns;
    const bids = (catalog.columns['bid_micros'] as { data: Float64Array }).data;
    const rank = async (release: RankingRelease, id: string): Promise<number> => {
      const answer = await engineFor(release).rank(
        {
          mode: 'fill',
          test: true,
          publication_id: busy(),
          slots: [{ id: 's' }],
          constraints: { candidates: [id, ...rivals] },
        },
        call(),
      );
      return answer.items[0]?.campaign_id === id ? 1 : 2;
    };
    const all = offers(engineFor(plain), { k: 100 }).items;
    const cpc = all.filter((i) => i.pricing === 'cpc').slice(0, 4);
    const rivals = all.map((i) => i.campaign_id);
    for (const item of cpc) {
      const row = columnOf(item.campaign_id);
      let before = 2;
      for (const factor of [1, 2, 8, 64]) {
        const raised = Float64Array.from(bids);
        raised[row]! *= factor;
        const release = await world.release({
          policy: parsePolicy({ epsilon: 0 }),
          catalog: {
            ...world.catalog,
            campaigns: {
              ...catalog,
              columns: {
                ...catalog.columns,
                bid_micros: { kind: 'numeric', dtype: 'f64', width: 1, data: raised },
              },
            },
          },
        });
        const now = await rank(release, item.campaign_id);
        expect(now).toBeLessThanOrEqual(before);
        before = now;
      }
      expect(before).toBe(1);
    }
  });

  test('shadow prices enter the score as the formula says', async () => {
    const id = offers(engineFor(plain), { k: 1 }).items[0]!.campaign_id;
    const priced = await world.release({
      policy: parsePolicy({ epsilon: 0 }),
      duals: {
        version: 'duals@test',
        mu: { [id]: 0.1 },
        omega: { [id]: 1_000 },
        rho: { [busy()]: 0.05 },
      },
    });
    const answer = offers(engineFor(priced), { k: 100, explain: 'summary' });
    expect(answer.versions.duals).toBe('duals@test');
    const { explain, score } = answer.items.find((i) => i.campaign_id === id)!;
    const { p_accept, e_spend, p_click, terms } = explain!;
    const row = columnOf(id);
    const delivered = plain.publications.deliveredPerSend[plain.publications.rowOf.get(busy())!]!;
    const near = (a: number, b: number) =>
      expect(Math.abs(a - b)).toBeLessThan(2 + Math.abs(b) * 1e-4);
    near(terms.budget, -0.1 * p_accept * e_spend);
    near(terms.fairness, 0.05 * p_accept * 0.7 * e_spend);
    if (plain.campaigns.goalOpens[row] === 0)
      near(terms.delivery, 1_000 * p_accept * p_click * delivered);
    expect(score).toBe(SCORE_TERMS.reduce((total, t) => total + terms[t], 0));
  });

  test('an id that every object inherits has no shadow price', async () => {
    const renamed = (column: Column | undefined): StringColumn => {
      if (column?.kind !== 'string') throw new Error('ids are strings');
      const dictionary = column.dictionary.map((id) => (id === busy() ? 'constructor' : id));
      return { ...column, dictionary };
    };
    const { catalog, snapshot } = world.input;
    const { publications } = catalog;
    const { publication } = snapshot.tables;
    const release = await world.release({
      policy: parsePolicy({ epsilon: 0 }),
      catalog: {
        ...catalog,
        publications: {
          ...publications,
          columns: {
            ...publications.columns,
            publication_id: renamed(publications.columns['publication_id']),
          },
        },
      },
      snapshot: {
        ...snapshot,
        tables: {
          ...snapshot.tables,
          publication: {
            ...publication!,
            columns: { ...publication!.columns, id: renamed(publication!.columns['id']) },
          },
        },
      },
      duals: { version: 'duals@test', mu: {}, omega: {}, rho: { pub_other: 0.05 } },
    });
    const asked = { publication_id: 'constructor', explain: 'summary' as const };
    const { items } = offers(engineFor(release), asked);
    expect(items.length).toBeGreaterThan(0);
    for (const { explain } of items) expect(explain!.terms.fairness).toBe(0);
  });

  test('a campaign without enough money for this send is left out under budget', () => {
    const engine = engineFor(plain);
    const before = offers(engine, { k: 3, explain: 'summary' });
    const [first] = before.items;
    ledger.set(first!.campaign_id, first!.explain!.e_spend - 1);
    const after = offers(engine, { k: 3 });
    expect(after.items.map((i) => i.campaign_id)).not.toContain(first!.campaign_id);
    expect(after.n_eligible).toBe(before.n_eligible - 1);
    expect(after.filtered.budget ?? 0).toBe((before.filtered.budget ?? 0) + 1);
  });

  test('more eligible campaigns than the limit are cut, without losing count or the best', async () => {
    const cut = await world.release({ policy: parsePolicy({ epsilon: 0, max_scored: 10 }) });
    const all = offers(engineFor(plain), { k: 100, constraints: { separation: false } });
    const some = offers(engineFor(cut), { k: 100, constraints: { separation: false } });
    expect(all.n_eligible).toBeGreaterThan(10);
    expect(some.items).toHaveLength(10);
    const names = new Set(all.items.map((i) => i.campaign_id));
    for (const item of some.items) expect(names.has(item.campaign_id)).toBe(true);
    for (const item of some.items) ledger.set(item.campaign_id, 0);
    const next = offers(engineFor(cut), { k: 100, constraints: { separation: false } });
    expect(next.items).toHaveLength(Math.min(10, all.n_eligible - 10));
  });

  test('a publication that wants no ads gets none', async () => {
    const publications = world.catalog.publications;
    const release = await world.release({
      catalog: {
        ...world.catalog,
        publications: {
          ...publications,
          columns: {
            ...publications.columns,
            max_ads_per_send: {
              kind: 'numeric',
              dtype: 'f64',
              width: 1,
              data: new Float64Array(publications.nRows),
            },
          },
        },
      },
    });
    const engine = engineFor(release);
    const answer = offers(engine, {});
    expect(answer.items).toEqual([]);
    expect(answer.n_eligible).toBe(0);
    expect(sum(answer.filtered)).toBe(release.campaigns.n);
    // Nothing is wrong with the campaigns: the send has no room for them.
    const { filtered, n_eligible } = offers(engineFor(plain), {});
    expect(answer.filtered.status).toBe(filtered.status);
    expect(answer.filtered.capacity).toBeGreaterThanOrEqual(n_eligible);
    const fill = await engine.rank(
      { mode: 'fill', publication_id: busy(), slots: [{ id: 'a' }] },
      call(),
    );
    expect(fill).toMatchObject({
      ...{ items: [], n_eligible: 0, degraded: expect.arrayContaining(['partial_fill']) },
      filtered: { capacity: release.campaigns.n },
    });
  });
});

describe('bad requests', () => {
  const refusal = (request: Partial<RankRequestBody>) => {
    try {
      offers(engineFor(plain), request);
    } catch (error) {
      return error;
    }
    return undefined;
  };
  const code = (expected: string) => expect.objectContaining({ code: expected });

  test('unknown ids, contradictions and impossible dates each have their code', async () => {
    expect(refusal({ publication_id: 'pub_nobody' })).toEqual(code('WAGGLE_UNKNOWN_PUBLICATION'));
    expect(
      refusal({ constraints: { candidates: ['cmp_a', plain.campaigns.ids[0]!, 'cmp_b'] } }),
    ).toEqual(
      expect.objectContaining({
        code: 'WAGGLE_UNKNOWN_CANDIDATES',
        message: expect.stringContaining('cmp_a, cmp_b'),
      }),
    );
    expect(refusal({ slots: [{ id: 'a' }, { id: 'b' }] })).toEqual(code('WAGGLE_RANK_INVALID'));
    for (const planned_at of ['2026-13-45T00:00:00Z', '2026-02-30T10:00:00Z']) {
      expect(refusal({ context: { planned_at } })).toEqual(code('WAGGLE_RANK_INVALID'));
    }
    expect(refusal({ pin: { release: 'rel_0000000000000000' } })).toEqual(
      code('WAGGLE_PIN_UNKNOWN'),
    );
    const fill = (slots: { id: string }[], n_ads?: number) =>
      expect(
        (async () =>
          engineFor(plain).rank(
            {
              mode: 'fill',
              publication_id: busy(),
              slots,
              ...(n_ads === undefined ? {} : { context: { n_ads } }),
            },
            call(),
          ))(),
      ).rejects.toThrow(code('WAGGLE_RANK_INVALID'));
    await fill([]);
    await fill([{ id: 'a' }, { id: 'a' }]);
    await fill([{ id: 'a' }, { id: 'b' }], 1);
    const beside = (mode: 'fill' | 'offers', nPlaced: number, n_ads?: number) =>
      expect(
        (async () =>
          engineFor(plain).rank(
            {
              ...{ mode, publication_id: busy(), slots: [{ id: 'a' }] },
              context: {
                already_placed: Array.from({ length: nPlaced }, (_, i) => `cmp_${i}`),
                ...(n_ads !== undefined && { n_ads }),
              },
            },
            call(),
          ))(),
      ).rejects.toThrow(code('WAGGLE_RANK_INVALID'));
    for (const mode of ['fill', 'offers'] as const) {
      await beside(mode, 2, 2);
      await beside(mode, 16);
    }
  });

  test('excluding what is not there excludes nothing', () => {
    const request = {
      constraints: { exclude_campaigns: ['cmp_nobody'], badv: ['adv_nobody'], bcat: ['nothing'] },
    };
    expect(offers(engineFor(plain), request).items).toEqual(offers(engineFor(plain), {}).items);
  });

  test('without a release, or with one of another tenant, nothing is ranked', () => {
    expect(() => offers(engineFor(undefined), {})).toThrow(code('WAGGLE_NO_ACTIVE_RELEASE'));
    expect(() =>
      engineFor(plain).rank(
        { mode: 'offers', publication_id: busy() },
        { ...call(), tenantId: 'ten_other' },
      ),
    ).toThrow(code('WAGGLE_NO_ACTIVE_RELEASE'));
  });

  test('a pinned release answers instead of the active one', () => {
    const engine = engineFor(plain, { byId: (id) => (id === curious.id ? curious : undefined) });
    expect(offers(engine, { pin: { release: curious.id } }).versions.release).toBe(curious.id);
    expect(offers(engine, { pin: { release: plain.id } }).versions.release).toBe(plain.id);
    expect(offers(engine, {}).versions.release).toBe(plain.id);
  });
});

describe('deadlines and fallbacks', () => {
  const request = (deadline_ms: number): RankRequestBody => ({
    mode: 'offers',
    publication_id: busy(),
    deadline_ms,
    explain: 'summary',
  });

  test('a deadline that passed in the queue is refused', () => {
    const received = call();
    clock.advance(50);
    expect(() => engineFor(plain).rank(request(50), received)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_DEADLINE_EXCEEDED' }),
    );
    expect(engineFor(plain).rank(request(51), received)).toMatchObject({
      degraded: ['prior_only_model'],
    });
  });

  test('a deadline that passes before scoring leaves prior rates, and says so', () => {
    busy();
    // Time flies from the moment the ledger is asked.
    const slow = { ...clock, monotonicMs: () => (ledger.asked > 0 ? 1_000 : 0) };
    ledger.asked = 0;
    const engine = engineFor(plain, { clock: slow });
    const answer = engine.rank(request(80), { ...call(), receivedAtMs: 0 }) as RankResponseBody;
    expect(answer.degraded).toEqual(['prior_only_model', 'deadline_prior']);
    expect(answer.items.length).toBeGreaterThan(0);
    expect(answer.items[0]!.explain!.p_accept).toBeCloseTo(0.3, 6);
    expect(answer.latency_ms).toBe(1_000);
  });

  test('numbers that are kept from an earlier request need no deadline', () => {
    busy();
    let late = false;
    const engine = engineFor(plain, {
      clock: { ...clock, monotonicMs: () => (late && ledger.asked >= 0 ? 5 : 0) },
    });
    const first = engine.rank(request(80), { ...call(), receivedAtMs: 0 }) as RankResponseBody;
    late = true;
    const second = engine.rank(request(6), { ...call(), receivedAtMs: 0 }) as RankResponseBody;
    expect(second.items).toEqual(first.items);
    expect(second.degraded).toEqual(['prior_only_model']);
  });

  test('a caller that went away is not ranked for', () => {
    expect(() =>
      engineFor(plain).rank(request(80), { ...call(), signal: AbortSignal.abort() }),
    ).toThrow(expect.objectContaining({ code: 'WAGGLE_ABORTED' }));
  });

  test('without a ledger, offers stand on its last answers and fills on nothing', async () => {
    const engine = engineFor(plain);
    const before = offers(engine, {});
    ledger.broken = new Error('disk');
    ledger.version++;
    const after = offers(engine, {});
    expect(after.degraded).toEqual(['prior_only_model', 'ledger_unavailable']);
    expect(after.items).toEqual(before.items);
    const fill = await engine.rank(
      { mode: 'fill', publication_id: busy(), slots: [{ id: 'a' }] },
      call(),
    );
    expect(fill).toMatchObject({
      items: [],
      degraded: ['prior_only_model', 'ledger_unavailable', 'partial_fill'],
    });
  });

  test('old features and a failing decision log are admitted and survived', () => {
    const engine = engineFor(plain, {
      decisions: {
        record: () => {
          throw new Error('full');
        },
      },
    });
    clock.advance(3 * 86_400_000);
    expect(offers(engine, {}).degraded).toEqual(['prior_only_model', 'stale_features']);
  });
});

describe('preparing', () => {
  test('changes no answer, and stops when it is told to', async () => {
    const prepared = engineFor(plain);
    await prepared.prepare(plain);
    const unprepared = engineFor(plain);
    for (const publication_id of plain.publications.ids.slice(0, 20)) {
      const one = offers(prepared, { publication_id });
      const other = offers(unprepared, { publication_id });
      expect(one.items).toEqual(other.items);
      expect(one.filtered).toEqual(other.filtered);
    }
    const controller = new AbortController();
    controller.abort();
    let asked = 0;
    const counting: LedgerPort = {
      availableMicros: (id, nowMs) => ledger.availableMicros(id, nowMs),
      reserve: (r) => ledger.reserve(r),
      get version() {
        asked++;
        return 0;
      },
    };
    await engineFor(plain, { ledger: counting }).prepare(plain, controller.signal);
    expect(asked).toBe(1);
  });
});

describe('a release that is out of service', () => {
  test('is forgotten when the engine is told; a fill that began with it goes on with the money of the hour', async () => {
    const heard = new Set<(campaignId: string) => void>();
    const told = (id: string, budget: number) => {
      ledger.set(id, budget);
      for (const listener of heard) listener(id);
    };
    let retire: (() => void) | undefined;
    let holds = 0;
    const engine = engineFor(plain, {
      byId: (id) => (id === curious.id ? curious : undefined),
      ledger: {
        availableMicros: (id, nowMs) => ledger.availableMicros(id, nowMs),
        onChange(listener) {
          heard.add(listener);
          return { close: () => void heard.delete(listener) };
        },
        async reserve(r) {
          holds++;
          const outcome = await ledger.reserve(r);
          retire?.();
          return outcome;
        },
      },
    });
    const pin = { release: curious.id };
    const request: RankRequestBody = {
      mode: 'fill',
      publication_id: busy(),
      pin,
      slots: [{ id: 'a' }, { id: 'b' }],
      context: { n_ads: 2 },
    };
    offers(engine, {});
    offers(engine, { pin });
    expect(heard.size).toBe(2);
    const names = curious.campaigns.ids;
    retire = () => {
      engine.forget(curious);
      // Nobody has money for a second slot.
      for (const id of names) told(id, 0);
    };
    const { items } = await engine.rank(request, call());
    retire = undefined;
    expect(items).toHaveLength(1);
    expect(heard.size).toBe(1);
    // The draw knew, so the ledger had nothing to refuse.
    expect(holds).toBe(1);
    for (const id of names) told(id, PLENTY);
    expect(offers(engine, { pin }).items.length).toBeGreaterThan(0);
    expect(heard.size).toBe(2);
    // Another release of that id is not the one that is meant.
    engine.forget({ ...curious });
    expect(heard.size).toBe(2);
    engine.close();
    expect(heard.size).toBe(0);
  });
});

describe('fill', () => {
  const fill = (engine: Engine, over: Partial<RankRequestBody> = {}, requestId = 'req_1') =>
    engine.rank(
      {
        mode: 'fill',
        publication_id: roomy(),
        explain: 'summary',
        slots: [{ id: 'a' }, { id: 'b' }, { id: 'c' }],
        ...over,
      },
      call(requestId),
    ) as Promise<RankResponseBody>;
  /** A publication that takes three ads and has candidates for them. */
  let roomiest: string | undefined;
  const roomy = (): string => {
    if (roomiest !== undefined) return roomiest;
    const engine = engineFor(plain);
    const { ids, maxAdsPerSend } = plain.publications;
    const rich = ids
      .filter((_, row) => maxAdsPerSend[row]! >= 3)
      .map((id) => ({ id, n: offers(engine, { publication_id: id, k: 20 }).items.length }))
      .sort((a, b) => b.n - a.n)[0]!;
    expect(rich.n).toBeGreaterThan(5);
    decisions.rows.length = 0;
    roomiest = rich.id;
    return roomiest;
  };

  test('every slot gets another campaign, competitors and advertisers stay apart, money is held', async () => {
    for (const release of [plain, curious]) {
      const engine = engineFor(release);
      for (let i = 0; i < 20; i++) {
        const { items } = await fill(engine, {}, `req_${i}`);
        expect(items.map((item) => item.slot_id)).toEqual(['a', 'b', 'c']);
        const rows = items.map((item) => columnOf(item.campaign_id));
        expect(new Set(rows).size).toBe(3);
        expect(new Set(rows.map((row) => release.campaigns.advertiser[row])).size).toBe(3);
        const groups = rows
          .map((row) => release.campaigns.competitorGroup[row]!)
          .filter((g) => g >= 0);
        expect(new Set(groups).size).toBe(groups.length);
        for (const item of items) {
          expect(item.explain!.p_accept).toBe(1);
          expect(item.reserved_micros!).toBeGreaterThanOrEqual(item.explain!.e_spend);
          expect(ledger.references.get(item.placement_id!)).toEqual({
            campaignId: item.campaign_id,
            amount: item.reserved_micros,
          });
        }
      }
    }
  });

  test('a test request holds no money', async () => {
    const { items } = await fill(engineFor(plain), { test: true });
    expect(items).toHaveLength(3);
    for (const item of items) {
      expect(item.reserved_micros).toBe(0);
      expect(item).not.toHaveProperty('placement_id');
    }
    expect(ledger.references.size).toBe(0);
    expect(decisions.last.test).toBe(true);
  });

  test('a fill that cannot be recorded is not made: what it held is given back', async () => {
    const given: string[] = [];
    const engine = engineFor(plain, {
      ledger: {
        availableMicros: (id, nowMs) => ledger.availableMicros(id, nowMs),
        reserve: (r) => ledger.reserve(r),
        release: async (id) => void given.push(id),
      },
      decisions: {
        record() {},
        recordDurably: () => Promise.reject(new Error('the disk is full')),
      },
    });
    await expect(fill(engine)).rejects.toMatchObject({ code: 'WAGGLE_DECISION_NOT_RECORDED' });
    expect(given.toSorted()).toEqual([...ledger.references.keys()].toSorted());
    expect(given).toHaveLength(3);
    // Nothing is held for a test, so there is nothing that a record would have to vouch for.
    expect((await fill(engine, { test: true })).items).toHaveLength(3);
  });

  test('a disk that refuses every decision is told of once a second, not once a request', async () => {
    const told: string[] = [];
    const engine = engineFor(plain, {
      logger: {
        ...silentLogger,
        error: (_fields: object, message?: string) => told.push(message!),
      },
      decisions: {
        record() {},
        recordDurably: () => Promise.reject(new Error('the disk is full')),
      },
    });
    for (let i = 0; i < 5; i++) await expect(fill(engine)).rejects.toThrow();
    expect(told).toEqual(['a decision was not logged; check the data directory']);
    clock.advance(1_000);
    await expect(fill(engine)).rejects.toThrow();
    expect(told).toHaveLength(2);
  });

  test('ads already in the send count against its limit', async () => {
    const limit = plain.publications.maxAdsPerSend[plain.publications.rowOf.get(roomy())!]!;
    const { items, degraded } = await fill(engineFor(plain), { context: { n_ads: limit + 1 } });
    expect(items).toHaveLength(2);
    expect(degraded).toContain('partial_fill');
  });

  test('fills of one post that are told of each other choose as one fill does', async () => {
    for (const release of [plain, curious]) {
      const { advertiser, competitorGroup } = release.campaigns;
      const engine = engineFor(release);
      for (let i = 0; i < 12; i++) {
        const placed: string[] = [];
        for (const position of [1, 2, 3]) {
          const { items, n_eligible, filtered } = await fill(
            engine,
            {
              slots: [{ id: 'a', position }],
              context: { n_ads: 3, already_placed: [...placed] },
            },
            `req_${i}_${position}`,
          );
          expect(items).toHaveLength(1);
          expect(n_eligible + sum(filtered)).toBe(release.campaigns.n);
          if (position > 1) expect(filtered.excluded).toBeGreaterThanOrEqual(placed.length);
          placed.push(items[0]!.campaign_id);
        }
        const rows = placed.map(columnOf);
        expect(new Set(rows.map((row) => advertiser[row])).size).toBe(3);
        const groups = rows.map((row) => competitorGroup[row]!).filter((g) => g >= 0);
        expect(new Set(groups).size).toBe(groups.length);
      }
      for (const row of decisions.rows) {
        if (row.release_id !== release.id) continue;
        expect((await replay(row, release)).differences).toEqual([]);
      }
    }
  });

  test('ads that stand in the send count for every limit, in offers too', async () => {
    const engine = engineFor(plain);
    const { advertiser, competitorGroup } = plain.campaigns;
    const menu = (request: Partial<RankRequestBody>) =>
      offers(engine, { publication_id: roomy(), k: 100, ...request });
    const all = menu({ constraints: { separation: false } }).items.map((i) => i.campaign_id);
    const rivals = (a: string, b: string) =>
      competitorGroup[columnOf(a)]! >= 0 &&
      competitorGroup[columnOf(a)] === competitorGroup[columnOf(b)] &&
      advertiser[columnOf(a)] !== advertiser[columnOf(b)];
    const held = all.find((id) => all.some((other) => rivals(id, other)))!;
    const context = { already_placed: [held] };
    const strict = menu({ context }).items.map((i) => i.campaign_id);
    const lax = menu({ context, constraints: { separation: false } });
    const sisters = all.filter((id) => advertiser[columnOf(id)] === advertiser[columnOf(held)]);
    expect(lax.items.map((i) => i.campaign_id).toSorted()).toEqual(
      all.filter((id) => !sisters.includes(id)).toSorted(),
    );
    expect(strict.some((id) => rivals(id, held))).toBe(false);
    expect(lax.items.some((i) => rivals(i.campaign_id, held))).toBe(true);

    // Of one advertiser two are allowed, and one or two stand there.
    const family = [...new Set(all.map((id) => advertiser[columnOf(id)]!))]
      .map((code) => all.filter((id) => advertiser[columnOf(id)] === code))
      .find((ids) => ids.length >= 2)!;
    const beside = async (already_placed: string[], max_per_advertiser: number) =>
      (
        await fill(engine, {
          slots: [{ id: 'a' }],
          context: { already_placed },
          constraints: { candidates: family, max_per_advertiser, separation: false },
        })
      ).items.map((i) => i.campaign_id);
    const [one] = family;
    const [second] = await beside([one!], 2);
    expect(family.slice(1)).toContain(second);
    expect(await beside([one!], 1)).toEqual([]);
    expect(await beside([one!, one!], 2)).toEqual([]);

    // An unknown campaign takes a place and rules out nothing.
    const limit = plain.publications.maxAdsPerSend[plain.publications.rowOf.get(roomy())!]!;
    const others = (n: number) => ({
      context: { already_placed: Array.from({ length: n }, (_, i) => `cmp_direct_${i}`) },
    });
    expect(menu(others(limit - 1)).n_eligible).toBe(menu({}).n_eligible);
    expect(menu(others(limit)).items).toEqual([]);
    expect((await fill(engine, others(limit - 1))).items).toHaveLength(1);
  });

  test('a refused reservation goes to the next best, and slots that were filled stay filled', async () => {
    const [first, second] = (await fill(engineFor(plain), { test: true, slots: [{ id: 'a' }] }))
      .items;
    expect(second).toBeUndefined();
    const refusing = engineFor(plain, {
      ledger: {
        availableMicros: (id, nowMs) => ledger.availableMicros(id, nowMs),
        reserve: (r) =>
          r.campaignId === first!.campaign_id
            ? Promise.resolve({ ok: false, reason: 'budget', availableMicros: 0 })
            : ledger.reserve(r),
      },
    });
    const refused = await fill(refusing);
    expect(refused.items).toHaveLength(3);
    expect(refused.items.map((i) => i.campaign_id)).not.toContain(first!.campaign_id);

    let calls = 0;
    const dying = engineFor(plain, {
      ledger: {
        availableMicros: (id, nowMs) => ledger.availableMicros(id, nowMs),
        reserve: (r) =>
          ++calls === 2 ? Promise.reject(new Error('disk full')) : ledger.reserve(r),
      },
    });
    const partial = await fill(dying);
    expect(partial.items).toHaveLength(1);
    expect(partial.degraded).toEqual(['prior_only_model', 'ledger_unavailable', 'partial_fill']);
    expect(ledger.references.has(partial.items[0]!.placement_id!)).toBe(true);
  });

  test('five hundred concurrent fills on one budget never overspend it', async () => {
    const [favourite] = (await fill(engineFor(plain), { test: true, slots: [{ id: 'a' }] })).items;
    const { campaign_id, explain } = favourite!;
    ledger.set(campaign_id, explain!.e_spend * 40);
    // Disks answer in any order.
    const rng = new Rng(1);
    ledger.commit = async () => {
      for (let i = rng.integer(20); i > 0; i--) await Promise.resolve();
    };
    const engine = engineFor(plain);
    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, i) => fill(engine, { slots: [{ id: 'a' }] }, `req_${i}`)),
    );
    const held = [...ledger.references.values()].filter((r) => r.campaignId === campaign_id);
    const total = held.reduce((sum, r) => sum + r.amount, 0);
    expect(total).toBeLessThanOrEqual(explain!.e_spend * 40);
    expect(held.length).toBeGreaterThan(5);
    const answered = answers.flatMap((a) => a.items).filter((i) => i.campaign_id === campaign_id);
    expect(answered).toHaveLength(held.length);
    expect(answers.every((a) => a.items.length === 1)).toBe(true);
  });
});

describe('replay', () => {
  test('a logged decision is made again bit for bit', async () => {
    const engine = engineFor(curious);
    const rng = new Rng(5);
    const ids = curious.publications.ids;
    for (let i = 0; i < 60; i++) {
      for (const id of curious.campaigns.ids) {
        if (rng.bernoulli(0.1)) ledger.set(id, rng.bernoulli(0.5) ? 0 : rng.integer(1e8));
      }
      clock.advance(rng.integer(7_000_000));
      const publication_id = ids[rng.integer(ids.length)]!;
      if (i % 2 === 0) {
        offers(engine, { publication_id, k: 1 + rng.integer(12), explain: 'summary' }, `req_${i}`);
      } else {
        await engine.rank(
          {
            mode: 'fill',
            publication_id,
            test: i % 4 === 1,
            slots: [{ id: 'a', position: 2 }, { id: 'b' }],
          },
          call(`req_${i}`),
        );
      }
    }
    expect(decisions.rows).toHaveLength(60);
    let explored = 0;
    let items = 0;
    for (const row of decisions.rows) {
      const again = await replay(JSON.parse(JSON.stringify(row)), curious);
      expect(again.differences).toEqual([]);
      expect(again.matches).toBe(true);
      explored += again.logged.explored ? 1 : 0;
      items += again.logged.campaign_id.length;
    }
    expect(explored).toBeGreaterThan(5);
    expect(items).toBeGreaterThan(30);
  });

  test('a decision that fell back to priors, met refusals or was cut replays, too', async () => {
    const cut = await world.release({ policy: parsePolicy({ epsilon: 0.5, max_scored: 10 }) });
    let refuse = 0;
    const engine = engineFor(cut, {
      clock: { ...clock, monotonicMs: () => (ledger.asked > 0 ? 1_000 : 0) },
      ledger: {
        availableMicros: (id, nowMs) => ledger.availableMicros(id, nowMs),
        reserve: (r) =>
          refuse++ % 3 === 1
            ? Promise.reject(new Error('disk'))
            : refuse % 2 === 0
              ? Promise.resolve({ ok: false, reason: 'budget', availableMicros: 0 })
              : ledger.reserve(r),
      },
    });
    for (let i = 0; i < 12; i++) {
      ledger.asked = 0;
      for (const id of cut.campaigns.ids.slice(i, i + 6)) ledger.set(id, i % 2);
      await engine.rank(
        i % 3 === 0
          ? { mode: 'offers', publication_id: busy(), k: 6 }
          : { mode: 'fill', publication_id: busy(), slots: [{ id: 'a' }, { id: 'b' }] },
        { ...call(`req_${i}`), receivedAtMs: 0 },
      );
    }
    for (const row of decisions.rows) {
      expect((await replay(row, cut)).differences).toEqual([]);
      expect(row.degraded).toContain('deadline_prior');
    }
  });

  test('a row of another release, or one that cannot be read, is refused', async () => {
    offers(engineFor(plain), {});
    const code = expect.objectContaining({ code: 'WAGGLE_REPLAY_MISMATCH' });
    await expect(replay(decisions.last, curious)).rejects.toThrow(code);
    await expect(replay({ ...decisions.last, items: '{' }, plain)).rejects.toThrow(code);
    await expect(replay({ ...decisions.last, items: '{"v":9}' }, plain)).rejects.toThrow(code);
  });

  test('a changed log row is told apart', async () => {
    offers(engineFor(plain), {});
    const items = JSON.parse(decisions.last.items);
    items.score[0] += 1;
    const again = await replay({ ...decisions.last, items: JSON.stringify(items) }, plain);
    expect(again).toMatchObject({ matches: false, differences: ['score'] });
  });
});

test('every example request of this file follows the contract', () => {
  const validator = Compile(RankRequest);
  expect(logged.length).toBeGreaterThan(500);
  for (const row of logged) {
    expect([...validator.Errors(JSON.parse(row.request))], row.request).toEqual([]);
  }
});
