import { createHash } from 'node:crypto';
import { cp, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DAY_MS, manualClock, silentLogger } from '@waggle/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BudgetLedger } from '../src/ledger/index.js';
import { nodeFiles, WriteAheadLog } from '../src/wal/index.js';

const T0 = Date.parse('2026-03-02T12:00:00Z');
let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-ledger-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const clock = manualClock(T0);
async function openLedger(dir = root) {
  const wal = await WriteAheadLog.open({ dir });
  const opening = BudgetLedger.open({ wal, clock, logger: silentLogger });
  const ledger = await opening.catch(async (err) => {
    await wal.close();
    throw err;
  });
  return {
    wal,
    ledger,
    async close() {
      await ledger.close();
      await wal.close();
    },
  };
}
const budget = (budgetMicros: number, dailyBudgetMicros = 0, spentMicros = 0) => [
  { campaignId: 'c', budgetMicros, dailyBudgetMicros, spentMicros },
];
const want = (referenceId: string, amountMicros: number, nowMs = T0) => ({
  campaignId: 'c',
  referenceId,
  amountMicros,
  decisionId: `d-${referenceId}`,
  nowMs,
});

test('every entry of a reference is of the tenant that reserved, over snapshots and restarts', async () => {
  const tenants = async (wal: WriteAheadLog) => {
    const seen: unknown[] = [];
    for await (const { payload } of wal.read(0)) {
      const { t, n } = JSON.parse(Buffer.from(payload).toString()) as { t: string; n?: string };
      if (t !== 'budgets') seen.push([t, n]);
    }
    return seen;
  };
  const first = await openLedger();
  first.ledger.setBudgets(budget(1000));
  await first.ledger.reserve({ ...want('a', 100), tenantId: 'ten_a' });
  await first.ledger.reserve({ ...want('b', 100), tenantId: 'ten_b' });
  await first.ledger.reserve(want('c', 100));
  await first.ledger.release('b');
  expect(await tenants(first.wal)).toEqual([
    ['reserve', 'ten_a'],
    ['reserve', 'ten_b'],
    ['reserve', undefined],
    ['release', 'ten_b'],
  ]);
  await first.close();
  const second = await openLedger();
  await second.ledger.charge('a', 50);
  await second.ledger.release('c');
  expect((await tenants(second.wal)).slice(-2)).toEqual([
    ['charge', 'ten_a'],
    ['release', undefined],
  ]);
  await second.close();
});

describe('reservations', () => {
  test('five hundred at once on one budget never overspend and share their syncs', async () => {
    const { ledger, wal, close } = await openLedger();
    ledger.setBudgets(budget(100_000));
    const before = wal.status().syncs;
    const results = await Promise.all(
      Array.from({ length: 500 }, (_, i) => ledger.reserve(want(`r${i}`, 700))),
    );
    expect(results.filter((r) => r.ok)).toHaveLength(Math.floor(100_000 / 700));
    expect(ledger.balances('c')).toMatchObject({ heldMicros: 142 * 700, availableMicros: 600 });
    expect(wal.status().syncs - before).toBeLessThanOrEqual(3);
    expect(results.at(-1)).toEqual({ ok: false, reason: 'budget', availableMicros: 600 });
    await close();
  });

  test('the same reference is held once, however often it is asked', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1000));
    const twice = await Promise.all([
      ledger.reserve(want('a', 600)),
      ledger.reserve(want('a', 600)),
    ]);
    expect(twice).toEqual([{ ok: true }, { ok: true }]);
    expect(ledger.availableMicros('c', T0)).toBe(400);
    await expect(ledger.reserve(want('a', 500))).rejects.toMatchObject({
      code: 'WAGGLE_LEDGER_CONFLICT',
    });
    await close();
  });

  test('the daily budget stops a UTC day and begins anew on the next', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1000, 300));
    expect(await ledger.reserve(want('a', 250))).toEqual({ ok: true });
    expect(await ledger.reserve(want('b', 100))).toEqual({
      ok: false,
      reason: 'daily_budget',
      availableMicros: 50,
    });
    const tomorrow = T0 + DAY_MS;
    expect(ledger.availableMicros('c', tomorrow)).toBe(300);
    expect(await ledger.reserve(want('b', 300, tomorrow))).toEqual({ ok: true });
    // Yesterday's money given back today widens the total, not today.
    await ledger.release('a');
    expect(ledger.availableMicros('c', tomorrow)).toBe(0);
    expect(ledger.availableMicros('c', tomorrow + DAY_MS)).toBe(300);
    expect(ledger.balances('c')).toMatchObject({ availableMicros: 700 });
    await close();
  });

  test('a clock that jumps ahead and back leaves each day its own budget, over restarts', async () => {
    let open = await openLedger();
    open.ledger.setBudgets(budget(10_000, 300));
    await open.ledger.reserve(want('a', 250));
    const wrong = T0 + 60 * DAY_MS;
    expect(await open.ledger.reserve(want('b', 300, wrong))).toEqual({ ok: true });
    for (let restart = 0; restart < 2; restart++) {
      expect(open.ledger.availableMicros('c', wrong)).toBe(0);
      expect(open.ledger.availableMicros('c', T0)).toBe(50);
      expect(open.ledger.availableMicros('c', T0 + DAY_MS)).toBe(300);
      await open.close();
      open = await openLedger();
    }
    await open.ledger.release('a');
    expect(open.ledger.availableMicros('c', T0)).toBe(300);
    await open.close();
  });

  test('settling old days does not push out the day that is limited now', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(100_000, 300));
    for (let d = 0; d < 40; d++) await ledger.reserve(want(`r${d}`, 300, T0 + d * DAY_MS));
    for (let d = 0; d < 39; d++) await ledger.charge(`r${d}`, 200);
    expect(ledger.availableMicros('c', T0 + 39 * DAY_MS)).toBe(0);
    expect(ledger.availableMicros('c', T0 + 38 * DAY_MS)).toBe(100);
    await close();
  });

  test('an unknown campaign, money spent elsewhere and impossible amounts are refused', async () => {
    const { ledger, close } = await openLedger();
    expect(await ledger.reserve(want('a', 1))).toEqual({
      ok: false,
      reason: 'unknown_campaign',
      availableMicros: 0,
    });
    ledger.setBudgets(budget(1000, 0, 900));
    expect(ledger.availableMicros('c', T0)).toBe(100);
    for (const amount of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      await expect(ledger.reserve(want('x', amount))).rejects.toMatchObject({
        code: 'WAGGLE_LEDGER_AMOUNT',
      });
    }
    await close();
  });

  test('a new catalog never frees what is held or was spent', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1000, 0, 200));
    await ledger.reserve(want('a', 500));
    ledger.setBudgets(budget(600, 0, 0));
    expect(ledger.availableMicros('c', T0)).toBe(0);
    expect(ledger.balances('c')).toMatchObject({
      heldMicros: 500,
      outsideMicros: 200,
      availableMicros: -100,
    });
    await close();
  });

  test('names the campaign whose money changed', async () => {
    const { ledger, close } = await openLedger();
    const names: string[] = [];
    const subscription = ledger.onChange((id) => names.push(id));
    const before = ledger.version;
    ledger.setBudgets(budget(10));
    await ledger.reserve(want('a', 5));
    await ledger.release('a');
    expect(names).toEqual(['c', 'c', 'c']);
    expect(ledger.version).toBe(before + 3);
    subscription.close();
    await close();
  });
});

describe('settling', () => {
  test('a charge returns the rest, a second one changes nothing', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1000));
    await ledger.reserve(want('a', 600));
    expect(await ledger.charge('a', 450)).toEqual({
      applied: true,
      releasedMicros: 150,
      chargedMicros: 450,
      refusedMicros: 0,
    });
    expect(await ledger.charge('a', 450)).toMatchObject({ applied: false, chargedMicros: 450 });
    expect(await ledger.release('a')).toMatchObject({ applied: false });
    expect(ledger.balances('c')).toMatchObject({
      heldMicros: 0,
      spentMicros: 450,
      availableMicros: 550,
    });
    await close();
  });

  test('charging more than was held stops hard at the budget', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1000));
    await ledger.reserve(want('a', 600));
    await ledger.reserve(want('b', 300));
    expect(await ledger.charge('a', 900)).toMatchObject({ chargedMicros: 700, refusedMicros: 200 });
    expect(ledger.balances('c')).toMatchObject({
      availableMicros: 0,
      spentMicros: 700,
      heldMicros: 300,
    });
    await close();
  });

  test('unknown and released references are told apart', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(10));
    await expect(ledger.release('nobody')).rejects.toMatchObject({
      code: 'WAGGLE_LEDGER_UNKNOWN_REFERENCE',
    });
    await ledger.reserve(want('a', 5));
    await ledger.release('a');
    expect(await ledger.release('a')).toMatchObject({ applied: false, releasedMicros: 5 });
    await expect(ledger.charge('a', 5)).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_CONFLICT' });
    await close();
  });

  test('adjustments count once and stay within the budget', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(100));
    const adjust = (referenceId: string, amountMicros: number) =>
      ledger.adjust({ campaignId: 'c', referenceId, amountMicros, nowMs: T0 });
    expect(await adjust('k', 60)).toEqual({ applied: true });
    expect(await adjust('k', 60)).toEqual({ applied: false });
    await expect(adjust('l', 50)).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_AMOUNT' });
    expect(await adjust('m', -60)).toEqual({ applied: true });
    await expect(adjust('n', -1)).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_AMOUNT' });
    expect(ledger.availableMicros('c', T0)).toBe(100);
    await close();
  });
});

type Step =
  | { do: 'reserve'; ref: number; amount: number; day: number }
  | { do: 'commit'; ref: number; amount: number; day: number }
  | { do: 'release'; ref: number }
  | { do: 'cancel'; ref: number }
  | { do: 'charge'; ref: number; amount: number }
  | { do: 'snapshot' }
  | { do: 'restart' }
  | { do: 'crash' };
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('reserve' as const),
      ref: fc.nat(30),
      amount: fc.nat(400),
      day: fc.nat(2),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('commit' as const),
      ref: fc.nat(30),
      amount: fc.nat(400),
      day: fc.nat(2),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('release' as const), ref: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel' as const), ref: fc.nat(30) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('charge' as const),
      ref: fc.nat(30),
      amount: fc.nat(600),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('snapshot' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
);

test('accounts balance, budgets hold and state survives restarts and crashes, whatever is done', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      let dir = await mkdtemp(join(root, 'law-'));
      let open = await openLedger(dir);
      const limits = budget(2000, 900);
      open.ledger.setBudgets(limits);
      /** What each reference keeps of its day. */
      const kept = new Map<string, { day: number; amount: number }>();
      let beyond = 0;
      const onDay = (day: number) =>
        [...kept.values()].reduce((sum, k) => sum + (k.day === day ? k.amount : 0), 0);
      for (const s of steps) {
        const before = open.ledger.balances('c');
        switch (s.do) {
          case 'reserve':
            await open.ledger
              .reserve(want(`r${s.ref}`, s.amount, T0 + s.day * DAY_MS))
              .then(({ ok }) => {
                if (ok && !kept.has(`r${s.ref}`)) kept.set(`r${s.ref}`, s);
              }, expectKnown);
            break;
          case 'commit':
            await open.ledger
              .commit(want(`r${s.ref}`, s.amount, T0 + s.day * DAY_MS))
              .then(({ applied }) => {
                if (!applied) return;
                kept.set(`r${s.ref}`, s);
                // What nobody was asked for may pass the budgets; nothing else does.
                beyond += s.amount;
              });
            break;
          case 'cancel':
            await open.ledger.cancel(want(`r${s.ref}`, 0)).then(({ applied }) => {
              if (applied) kept.set(`r${s.ref}`, { day: 0, amount: 0 });
            });
            break;
          case 'release':
            await open.ledger.release(`r${s.ref}`).then(({ applied }) => {
              if (applied) kept.set(`r${s.ref}`, { day: 0, amount: 0 });
            }, expectKnown);
            break;
          case 'charge':
            await open.ledger.charge(`r${s.ref}`, s.amount).then(({ applied, chargedMicros }) => {
              const { day } = kept.get(`r${s.ref}`)!;
              if (applied) kept.set(`r${s.ref}`, { day, amount: chargedMicros });
            }, expectKnown);
            break;
          case 'snapshot':
            await open.ledger.snapshot();
            break;
          case 'restart':
            await open.close();
            open = await openLedger(dir);
            break;
          case 'crash': {
            // What lies on the disk now is what a killed process would leave.
            const copy = await mkdtemp(join(root, 'law-'));
            await cp(dir, copy, { recursive: true, filter: (f) => !f.endsWith('/lock') });
            await open.close();
            dir = copy;
            open = await openLedger(dir);
            open.ledger.setBudgets(limits);
            break;
          }
        }
        const b = open.ledger.balances('c')!;
        if (s.do === 'restart' || s.do === 'crash') expect(b).toEqual(before);
        expect(b.availableMicros + b.heldMicros + b.spentMicros + b.outsideMicros).toBe(
          b.budgetMicros,
        );
        const all = [...kept.values()].reduce((sum, { amount }) => sum + amount, 0);
        expect(b.heldMicros + b.spentMicros).toBe(all);
        expect(all).toBeLessThanOrEqual(2000 + beyond);
        expect(Math.min(b.heldMicros, b.spentMicros)).toBeGreaterThanOrEqual(0);
        for (let day = 0; day < 4; day++) {
          expect(onDay(day)).toBeLessThanOrEqual(900 + beyond);
          const free = open.ledger.availableMicros('c', T0 + day * DAY_MS);
          expect(free).toBeGreaterThanOrEqual(0);
          expect(free).toBe(Math.max(0, Math.min(900 - onDay(day), b.availableMicros)));
        }
      }
      await open.close();
    }),
    { numRuns: 25 },
  );
});

function pick(b: { budgetMicros: number; heldMicros: number; spentMicros: number } | undefined) {
  const { budgetMicros, heldMicros, spentMicros } = b!;
  return { budgetMicros, heldMicros, spentMicros };
}

function expectKnown(err: { code?: string }): void {
  expect(err.code).toMatch(/^WAGGLE_LEDGER_/);
}

describe('recovery', () => {
  test('rebuilds holds and settled references from the log alone', async () => {
    const live = join(root, 'live');
    const first = await openLedger(live);
    first.ledger.setBudgets(budget(1000, 800));
    await first.ledger.reserve(want('a', 300));
    await first.ledger.reserve(want('b', 200));
    await first.ledger.charge('a', 100);
    const copy = join(root, 'copy');
    await cp(live, copy, { recursive: true, filter: (f) => !f.endsWith('/lock') });
    await first.close();
    const second = await openLedger(copy);
    second.ledger.setBudgets(budget(1000, 800));
    expect(second.ledger.balances('c')).toMatchObject({
      heldMicros: 200,
      spentMicros: 100,
      availableMicros: 700,
    });
    expect(second.ledger.availableMicros('c', T0)).toBe(500);
    expect(await second.ledger.charge('a', 100)).toMatchObject({ applied: false });
    await second.close();
  });

  test('a snapshot shortens the log', async () => {
    const wal = await WriteAheadLog.open({ dir: root, segmentBytes: 500 });
    const ledger = await BudgetLedger.open({ wal, clock, logger: silentLogger });
    ledger.setBudgets(budget(1_000_000));
    for (let i = 0; i < 50; i++) await ledger.reserve(want(`r${i}`, 10));
    await ledger.snapshot();
    expect((await readdir(root)).filter((f) => f.endsWith('.wal')).length).toBeLessThanOrEqual(2);
    await ledger.close();
    await wal.close();
    const again = await openLedger();
    expect(again.ledger.balances('c')).toMatchObject({ heldMicros: 500 });
    await again.close();
  });

  test('a snapshot is of one moment, whatever changes while it is taken in slices', async () => {
    const live = join(root, 'live');
    const { ledger, wal, close } = await openLedger(live);
    const n = 6_000;
    const of = (i: number) => ({ ...want(`r${i}`, 10), campaignId: `c${i % 1_700}` });
    const limits = Array.from({ length: 1_700 }, (_, i) => ({
      campaignId: `c${i}`,
      budgetMicros: 1_000,
      dailyBudgetMicros: 900,
    }));
    ledger.setBudgets(limits);
    await Promise.all(Array.from({ length: n }, (_, i) => ledger.reserve(of(i))));
    const before = new Map(limits.map(({ campaignId: id }) => [id, ledger.balances(id)]));
    let taken = false;
    const taking = ledger.snapshot().then(() => {
      taken = true;
    });
    // Its own flush comes first: nothing is on its way then, and what follows changes while it copies.
    await wal.flush();
    const changes: Promise<unknown>[] = [];
    let turns = 0;
    for (; !taken; turns++) {
      const at = (turns * 577) % n;
      changes.push(
        ledger.release(`r${at}`),
        ledger.charge(`r${(at + 300) % n}`, 12).catch(() => {}),
      );
      changes.push(
        ledger.reserve(of(n + turns)),
        ledger.commit({ ...of(2 * n + turns), campaignId: `new${turns}` }),
      );
      ledger.setBudgets([{ ...limits[turns % 1_700]!, budgetMicros: 2_000 + turns }]);
      await new Promise((wake) => setImmediate(wake));
    }
    await taking;
    await Promise.all(changes);
    expect(turns).toBeGreaterThan(7);

    const [, head, ...slices] = (await readFile(join(live, 'snapshot.json'), 'utf8')).split('\n');
    const sums = new Map<string, number>();
    for (const slice of slices) {
      for (const [, campaign, amount, , , state] of JSON.parse(slice) as [
        string,
        string,
        number,
        number,
        string,
        string,
      ][]) {
        if (state === 'held') sums.set(campaign, (sums.get(campaign) ?? 0) + amount);
      }
    }
    for (const [id, budgetMicros, , , held, spent] of JSON.parse(head!).campaigns) {
      expect(sums.get(id) ?? 0).toBe(held);

      expect({ budgetMicros, heldMicros: held, spentMicros: spent }).toMatchObject(
        pick(before.get(id)),
      );
    }
    // Killed now: the snapshot and the log behind it tell everything.
    await cp(live, join(root, 'copy'), { recursive: true, filter: (f) => !f.endsWith('/lock') });
    const again = await openLedger(join(root, 'copy'));
    for (const { campaignId: id } of limits) {
      expect(again.ledger.balances(id)).toEqual(ledger.balances(id));
      expect(again.ledger.availableMicros(id, T0)).toBe(ledger.availableMicros(id, T0));
    }
    for (let i = 0; i < turns; i++)
      expect(again.ledger.balances(`new${i}`)).toMatchObject({ heldMicros: 10 });
    await again.close();
    await close();
  });

  test('a damaged snapshot is refused, not guessed', async () => {
    const first = await openLedger();
    first.ledger.setBudgets(budget(1000));
    await first.ledger.reserve(want('a', 300));
    await first.close();
    const path = join(root, 'snapshot.json');
    await writeFile(path, (await readFile(path, 'utf8')).replace('300', '301'));
    await expect(openLedger()).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_CORRUPT' });
  });

  test('what a newer Waggle wrote is refused and left as it is, in the snapshot and in the log', async () => {
    const first = await openLedger();
    first.ledger.setBudgets(budget(1000));
    await first.ledger.reserve(want('a', 300));
    await first.ledger.snapshot();
    await first.close();
    const path = join(root, 'snapshot.json');
    const written = await readFile(path, 'utf8');
    const [, ...lines] = written.split('\n');
    const body = lines.join('\n').replace('"version":1', '"version":2');
    const newer = `${createHash('sha256').update(body).digest('hex')}\n${body}`;
    await writeFile(path, newer);
    await expect(openLedger()).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_NEWER' });
    expect(await readFile(path, 'utf8')).toBe(newer);

    await writeFile(path, written);
    const wal = await WriteAheadLog.open({ dir: root });
    await wal.append(Buffer.from(JSON.stringify({ t: 'lend', c: 'c', r: 'b', a: 100, at: T0 })));
    await wal.close();
    await expect(openLedger()).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_NEWER' });
    expect(await readFile(path, 'utf8')).toBe(written);
  });

  test('when the log refuses a reservation, nothing stays held', async () => {
    let broken = false;
    const wal = await WriteAheadLog.open({
      dir: root,
      files: {
        ...nodeFiles,
        async open(path, flags) {
          const handle = await open(path, flags);
          return {
            write: ((...args: Parameters<typeof handle.write>) => {
              if (broken) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
              return handle.write(...args);
            }) as never,
            datasync: () => handle.datasync(),
            sync: () => handle.sync(),
            truncate: (size) => handle.truncate(size),
            close: () => handle.close(),
          };
        },
      },
    });
    const ledger = await BudgetLedger.open({ wal, clock, logger: silentLogger });
    ledger.setBudgets(budget(1000));
    await ledger.reserve(want('a', 100));
    broken = true;
    await expect(ledger.reserve(want('b', 100))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_DISK_FULL',
    });
    await expect(ledger.release('a')).rejects.toMatchObject({ code: 'WAGGLE_WAL_DISK_FULL' });
    expect(ledger.availableMicros('c', T0)).toBe(900);
    broken = false;
    expect(await ledger.reserve(want('b', 100))).toEqual({ ok: true });
    await ledger.close();
    await wal.close();
  });
});

describe('commitments that are reported', () => {
  test('are held once, beyond the budget too, whoever held them first, and survive a crash', async () => {
    const live = join(root, 'live');
    const first = await openLedger(live);
    first.ledger.setBudgets(budget(1_000, 300));
    await first.ledger.reserve(want('fill', 100));
    expect(await first.ledger.commit(want('fill', 999))).toEqual({ applied: false });
    const answers = await Promise.all([1, 2].map(() => first.ledger.commit(want('a', 5_000))));
    expect(answers).toEqual([{ applied: true }, { applied: false }]);
    await first.ledger.commit({ ...want('b', 70), campaignId: 'unheard-of' });
    await cp(live, join(root, 'copy'), { recursive: true, filter: (f) => !f.endsWith('/lock') });
    await first.close();
    for (const dir of ['copy', 'live']) {
      const { ledger, close } = await openLedger(join(root, dir));
      ledger.setBudgets(budget(1_000, 300));
      expect(ledger.balances('c')).toMatchObject({ heldMicros: 5_100, availableMicros: -4_100 });
      expect(ledger.availableMicros('c', T0)).toBe(0);
      expect(ledger.availableMicros('c', T0 + DAY_MS)).toBe(0);
      expect(ledger.balances('unheard-of')).toMatchObject({ heldMicros: 70 });
      expect(await ledger.reserve(want('c', 1))).toMatchObject({ ok: false, availableMicros: 0 });
      expect(await ledger.charge('fill', 400)).toMatchObject({ chargedMicros: 100 });
      expect(await ledger.cancel(want('a', 0))).toEqual({ applied: true });
      expect(ledger.balances('c')).toMatchObject({ heldMicros: 0, spentMicros: 100 });
      expect(ledger.availableMicros('c', T0)).toBe(200);
      await close();
    }
  });

  test('that were cancelled before hold nothing, also after a restart', async () => {
    let open = await openLedger();
    open.ledger.setBudgets(budget(1_000));
    expect(await open.ledger.cancel(want('a', 0))).toEqual({ applied: true });
    for (let restart = 0; restart < 2; restart++) {
      expect(await open.ledger.commit(want('a', 400))).toEqual({ applied: false });
      expect(open.ledger.availableMicros('c', T0)).toBe(1_000);
      await open.close();
      open = await openLedger();
    }
    await open.close();
  });

  test('count once, however late they are told again', async () => {
    const clock = manualClock(T0);
    const wal = await WriteAheadLog.open({ dir: root });
    const ledger = await BudgetLedger.open({ wal, clock, logger: silentLogger });
    ledger.setBudgets(budget(1_000));
    for (let day = 0; day < 20; day++) {
      await ledger.commit(want('a', 400));
      await ledger.cancel(want('b', 0, T0 + DAY_MS));
      await ledger.commit(want('b', 300, T0 + DAY_MS / 2));
      if (day === 3) await ledger.charge('a', 250);
      expect(ledger.availableMicros('c', clock.nowMs())).toBe(day < 3 ? 600 : 750);
      await ledger.snapshot();
      clock.advance(DAY_MS);
    }
    await ledger.close();
    await wal.close();
  });

  test('are settled for less, for more as far as the budget goes, or unheard of, once and for good', async () => {
    let open = await openLedger();
    open.ledger.setBudgets(budget(1_000));
    await open.ledger.commit(want('less', 300));
    await open.ledger.commit(want('more', 200));
    await open.ledger.cancel(want('ended', 0));
    for (let restart = 0; restart < 3; restart++) {
      const applied = restart === 0;
      const settle = (id: string, micros: number) => open.ledger.settle(want(id, micros));
      expect(await settle('less', 100)).toMatchObject({ applied, chargedMicros: 100 });
      expect(await settle('unheard', 250)).toMatchObject({ applied, chargedMicros: 250 });
      expect(await settle('more', 700)).toMatchObject({ applied, chargedMicros: 650 });
      expect(await settle('ended', 80)).toMatchObject({ applied: false });
      const lastYear = want('last year', 80, T0 - 365 * DAY_MS);
      expect(await open.ledger.settle(lastYear)).toMatchObject({ applied: false });
      expect(await open.ledger.commit(want('unheard', 400))).toEqual({ applied: false });
      expect(await open.ledger.cancel(want('less', 0))).toEqual({ applied: false });
      expect(open.ledger.balances('c')).toMatchObject({ heldMicros: 0, spentMicros: 1_000 });
      await open.close();
      open = await openLedger();
    }
    await open.close();
  });

  test('stay exact whatever they add up to', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1_000));
    for (let i = 0; i < 5; i++) await ledger.commit(want(`r${i}`, Number.MAX_SAFE_INTEGER - i));
    expect(ledger.balances('c')).toMatchObject({ heldMicros: Number.MAX_SAFE_INTEGER });
    for (let i = 0; i < 5; i++) await ledger.cancel(want(`r${i}`, 0));
    expect(ledger.balances('c')).toMatchObject({ heldMicros: 0, availableMicros: 1_000 });
    await close();
  });

  test('leave room to give spending back by hand', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(budget(1_000));
    const adjust = (referenceId: string, amountMicros: number) =>
      ledger.adjust({ campaignId: 'c', referenceId, amountMicros, nowMs: T0 });
    await adjust('k', 500);
    await ledger.commit(want('a', 2_000));
    expect(await adjust('l', -100)).toEqual({ applied: true });
    await expect(adjust('m', 1)).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_AMOUNT' });
    await close();
  });
});

describe('figures of a catalog', () => {
  const asOf = (asOfMs: number, budgetMicros: number, spentMicros = 0, dailyBudgetMicros = 0) => [
    { campaignId: 'c', budgetMicros, dailyBudgetMicros, spentMicros, asOfMs },
  ];

  test('a rollback brings no old budget back, not even after a crash or with a snapshot between', async () => {
    let open = await openLedger(join(root, '0'));
    open.ledger.setBudgets(asOf(T0, 10_000));
    await open.ledger.reserve(want('a', 1_500));
    open.ledger.setBudgets(asOf(T0 + 1, 2_000));
    for (const ending of ['none', 'crash', 'restart']) {
      if (ending === 'crash') {
        await open.wal.flush();
        await cp(join(root, '0'), join(root, '1'), {
          recursive: true,
          filter: (f) => !f.endsWith('/lock'),
        });
      }
      if (ending !== 'none') {
        await open.close();
        open = await openLedger(join(root, '1'));
        expect(open.ledger.availableMicros('c', T0)).toBe(500);
      }
      open.ledger.setBudgets(asOf(T0, 10_000));
      expect(open.ledger.availableMicros('c', T0)).toBe(500);
    }
    open.ledger.setBudgets(asOf(T0 + 2, 3_000));
    expect(open.ledger.availableMicros('c', T0)).toBe(1_500);
    await open.close();
  });

  test('money outside that settled for less comes back with a newer catalog, not with an older one', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(asOf(T0, 5_000, 1_000));
    ledger.setBudgets(asOf(T0 + 1, 5_000, 600));
    expect(ledger.balances('c')).toMatchObject({ outsideMicros: 600, availableMicros: 4_400 });
    ledger.setBudgets(asOf(T0, 5_000, 0));
    expect(ledger.balances('c')).toMatchObject({ outsideMicros: 600, availableMicros: 4_400 });
    await close();
  });

  test('a catalog of a time to come does not shut out those that follow it', async () => {
    const { ledger, close } = await openLedger();
    ledger.setBudgets(asOf(T0 + 3_650 * DAY_MS, 5_000));
    ledger.setBudgets(asOf(T0 + DAY_MS, 4_000));
    expect(ledger.balances('c')).toMatchObject({ budgetMicros: 4_000 });
    await close();
  });

  test('a ledger leaves out its own share, by an id that stays, and counts those of others', async () => {
    const shares = (...ledgers: [string, number][]) => [
      {
        ...asOf(T0, 1_000, 50)[0]!,
        ledgers: ledgers.map(([ledgerId, micros]) => ({ ledgerId, micros })),
      },
    ];
    const first = await openLedger(join(root, '1'));
    const second = await openLedger(join(root, '2'));
    const { id } = first.ledger;
    expect(id).toMatch(/^[0-9a-f]{12}$/);
    await first.ledger.commit(want('a', 300));
    for (const { ledger } of [first, second]) {
      ledger.setBudgets(shares([id, 300], [second.ledger.id, 200], ['0123456789ab', 10], ['', 7]));
    }
    // Neither of them has entries of the time before ledgers had ids.
    expect(first.ledger.availableMicros('c', T0)).toBe(1_000 - 50 - 300 - 200 - 10 - 7);
    expect(second.ledger.availableMicros('c', T0)).toBe(1_000 - 50 - 300 - 10 - 7);
    await first.close();
    await second.close();
    const again = await openLedger(join(root, '1'));
    expect(again.ledger.id).toBe(id);
    await again.close();
    await writeFile(join(root, '1', 'ledger.json'), '{}');
    await expect(openLedger(join(root, '1'))).rejects.toMatchObject({
      code: 'WAGGLE_LEDGER_CORRUPT',
    });
  });

  test('entries of the time before ids belong to the ledger that has them', async () => {
    const wal = await WriteAheadLog.open({ dir: root });
    await wal.append(
      Buffer.from(JSON.stringify({ t: 'reserve', c: 'c', r: 'a', a: 100, d: 'd', at: T0 })),
    );
    await wal.close();
    for (let restart = 0; restart < 2; restart++) {
      const { ledger, close } = await openLedger();
      ledger.setBudgets([{ ...asOf(T0, 1_000)[0]!, ledgers: [{ ledgerId: '', micros: 100 }] }]);
      expect(ledger.balances('c')).toMatchObject({ heldMicros: 100, outsideMicros: 0 });
      await close();
    }
  });

  test('setting the same again writes nothing', async () => {
    const { ledger, wal, close } = await openLedger();
    const rows = Array.from({ length: 2_500 }, (_, i) => ({
      ...asOf(T0, 100)[0]!,
      campaignId: `c${i}`,
    }));
    ledger.setBudgets(rows);
    const before = wal.lastSequence;
    ledger.setBudgets(rows);
    expect([before, wal.lastSequence]).toEqual([3, 3]);
    await close();
  });

  test('whatever is activated in whatever order, the newest counts, before and after a restart', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(
          fc.record({ at: fc.nat(50), budget: fc.nat(1_000), outside: fc.nat(1_000) }),
          { minLength: 1, maxLength: 8, selector: (f) => f.at },
        ),
        fc.boolean(),
        async (catalogs, snapshot) => {
          const dir = await mkdtemp(join(root, 'law-'));
          let open = await openLedger(dir);
          for (const { at, budget, outside } of catalogs) {
            open.ledger.setBudgets(asOf(T0 + at, budget, outside));
          }
          const newest = catalogs.reduce((a, b) => (b.at > a.at ? b : a));
          const expected = { budgetMicros: newest.budget, outsideMicros: newest.outside };
          expect(open.ledger.balances('c')).toMatchObject(expected);
          if (snapshot) await open.ledger.snapshot();
          await open.close();
          open = await openLedger(dir);
          expect(open.ledger.balances('c')).toMatchObject(expected);
          await open.close();
        },
      ),
      { numRuns: 15 },
    );
  });

  test('a snapshot and a log of before they had a time are read', async () => {
    const head = {
      version: 1,
      sequence: 2,
      campaigns: [['c', 1_000, 300, 50, 100, 0, 20_514, 100]],
    };
    const references = [['a', 'c', 100, 20_514, 'd-a', 'held', 0, T0, -1]];
    const body = `${JSON.stringify(head)}\n${JSON.stringify(references)}`;
    const wal = await WriteAheadLog.open({ dir: root });
    for (const r of ['x', 'a', 'b']) {
      await wal.append(
        Buffer.from(JSON.stringify({ t: 'reserve', c: 'c', r, a: 100, d: `d-${r}`, at: T0 })),
      );
    }
    await wal.close();
    await writeFile(
      join(root, 'snapshot.json'),
      `${createHash('sha256').update(body).digest('hex')}\n${body}`,
    );
    const { ledger, close } = await openLedger();
    expect(ledger.balances('c')).toEqual({
      budgetMicros: 1_000,
      dailyBudgetMicros: 300,
      availableMicros: 750,
      heldMicros: 200,
      spentMicros: 0,
      outsideMicros: 50,
    });
    expect(ledger.availableMicros('c', T0)).toBe(100);
    ledger.setBudgets(asOf(T0, 900, 10));
    expect(ledger.balances('c')).toMatchObject({ budgetMicros: 900, outsideMicros: 10 });
    await close();
  });
});
