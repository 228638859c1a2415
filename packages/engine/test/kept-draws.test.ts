import { idFactory, manualClock, silentLogger } from '@waggle/core';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { answerJson, Engine, parsePolicy, type RankingRelease, replay } from '../src/index.js';
import { MemoryDecisions, MemoryLedger } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld } from './support/world.js';

let world: TestWorld;
let release: RankingRelease;

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny', seed: 5, overrides: { campaigns: 60 } });
  release = await world.release({ policy: parsePolicy({ epsilon: 0.2 }) });
});
afterAll(() => world?.close());

function setUp() {
  const clock = manualClock(world.asOfMs);
  const ledger = new MemoryLedger(release);
  ledger.setAll(1e15);
  const decisions = new MemoryDecisions();
  const id = idFactory(() => clock.nowMs());
  const engine = () =>
    new Engine({ current: () => release, ledger, decisions, clock, logger: silentLogger, ids: id });
  const ask = (from: Engine, request: RankRequestBody, requestId: string) =>
    from.rank(request, {
      tenantId: TENANT,
      requestId,
      receivedAtMs: clock.monotonicMs(),
    }) as RankResponseBody;
  return { clock, ledger, decisions, engine, ask };
}

const requests = fc.record(
  {
    publication: fc.nat({ max: 2 }),
    k: fc.constantFrom(1, 3, 10, 30),
    explain: fc.constantFrom('none' as const, 'summary' as const, 'full' as const),
    separation: fc.boolean(),
    max_per_advertiser: fc.constantFrom(1, 2),
    slot: fc.constantFrom(undefined, { id: 'a"\u2028é' }, { id: 'b', floor_micros: 3_000_000 }),
    requestId: fc.constantFrom('req_1', 'req_"2\\', 'req_\u{1f41d}', 'req_4', 'req_5'),
    /** Money of the first item of the answer before, from here on. */
    money: fc.constantFrom(undefined, 0, 1, 1e15),
    laterMs: fc.constantFrom(0, 0, 0, 61_000),
  },
  { requiredKeys: ['publication', 'k', 'explain', 'requestId', 'laterMs'] },
);

test('an answer from kept draws is the answer of a fresh engine, in the object, the text and the log', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(requests, { minLength: 4, maxLength: 14 }), async (asked) => {
      const { clock, ledger, decisions, engine, ask } = setUp();
      const warm = engine();
      let last: RankResponseBody | undefined;
      for (const one of asked) {
        clock.advance(one.laterMs);
        if (one.money !== undefined && last?.items[0] !== undefined) {
          ledger.set(last.items[0].campaign_id, one.money);
        }
        const { separation, max_per_advertiser } = one;
        const request: RankRequestBody = {
          mode: 'offers',
          publication_id: release.publications.ids[one.publication]!,
          k: one.k,
          explain: one.explain,
          ...(one.slot === undefined ? {} : { slots: [one.slot] }),
          ...(separation === undefined && max_per_advertiser === undefined
            ? {}
            : {
                constraints: {
                  ...(separation === undefined ? {} : { separation }),
                  ...(max_per_advertiser === undefined ? {} : { max_per_advertiser }),
                },
              }),
        };
        const answer = ask(warm, request, one.requestId);
        const row = decisions.rows.at(-1)!;
        const fresh = ask(engine(), request, one.requestId);
        const freshRow = decisions.rows.at(-1)!;
        const { decision_id: _a, ...known } = JSON.parse(answerJson(answer));
        const { decision_id: _b, ...expected } = JSON.parse(JSON.stringify(fresh));
        expect(known).toEqual(expected);
        expect(answerJson(answer)).toBe(JSON.stringify(answer));
        expect([row.items, row.filtered]).toEqual([freshRow.items, freshRow.filtered]);
        expect((await replay(row, release)).differences).toEqual([]);
        expect(decisions.texts).toEqual(decisions.rows.map((r) => JSON.stringify(r)));
        last = answer;
      }
    }),
    { numRuns: 40 },
  );
});

test('shared items cannot be changed by one who got them, and changed answers have changed texts', () => {
  const { decisions, engine, ask } = setUp();
  const warm = engine();
  const publication_id = release.publications.ids[0]!;
  let answer: RankResponseBody;
  // Lists drawn to explore are their requests' own.
  let n = 0;
  do {
    answer = ask(warm, { mode: 'offers', publication_id, k: 5, explain: 'summary' }, `req_${n++}`);
  } while (JSON.parse(decisions.last.items).explored);
  expect(answer.items.length).toBeGreaterThan(0);
  expect(() => {
    answer.items[0]!.est_payout.p50_micros = 1;
  }).toThrow(TypeError);
  answer.request_id = 'another';
  expect(answerJson(answer)).toBe(JSON.stringify(answer));
  answer.filtered = { budget: 1 };
  expect(answerJson(answer)).toBe(JSON.stringify(answer));
  answer.items = [];
  expect(answerJson(answer)).toBe(JSON.stringify(answer));
});
