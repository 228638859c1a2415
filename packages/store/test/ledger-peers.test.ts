import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DAY_MS, manualClock, silentLogger } from '@waggle/core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Store } from '../src/index.js';
import { BudgetLedger, LedgerPeers } from '../src/ledger/index.js';
import { type TemporaryStore, temporaryStore } from '../src/testing/index.js';
import { WriteAheadLog } from '../src/wal/index.js';

const NOW_MS = Date.parse('2026-03-02T12:00:00Z');
const BUDGET = 1_000;

let subject: TemporaryStore;
let store: Store;
let root: string;
const open = new Set<Gateway>();

beforeAll(async () => {
  subject = await temporaryStore();
  store = subject.store;
});
afterAll(() => subject.dispose());
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-peers-'));
});
afterEach(async () => {
  for (const gateway of open) await gateway.close();
  await rm(root, { recursive: true, force: true });
  for (const table of ['ledger_entries', 'ledger_balances', 'ledger_settled'])
    await store.command(`TRUNCATE TABLE ${table}`);
});

/** The money of one gateway: a ledger in a directory of its own, and its way to the others. */
async function openGateway(name: string, { tenantId = 't', daily = 0 } = {}) {
  const clock = manualClock(NOW_MS);
  const common = { clock, logger: silentLogger, tenantId, intervalMs: 1, maxBackoffMs: 5 };
  const wal = await WriteAheadLog.open({ dir: join(root, name) });
  const ledger = await BudgetLedger.open({ wal, ...common });
  let tenant = tenantId;
  const peers = new LedgerPeers({ ledger, ...common, tenantId: () => tenant });
  ledger.setBudgets([
    { campaignId: 'c', budgetMicros: BUDGET, dailyBudgetMicros: daily, asOfMs: NOW_MS - DAY_MS },
  ]);
  ledger.start(store);
  const gateway = {
    ledger,
    peers,
    clock,
    hold: (referenceId: string, amountMicros: number) =>
      ledger.reserve({
        campaignId: 'c',
        referenceId,
        amountMicros,
        decisionId: 'd',
        nowMs: clock.nowMs(),
      }),
    report: (referenceId: string, amountMicros: number) => ({
      campaignId: 'c',
      referenceId,
      amountMicros,
      decisionId: 'd',
      nowMs: clock.nowMs(),
    }),
    serve: (other: string) => {
      tenant = other;
    },
    free: () => ledger.availableMicros('c', clock.nowMs()),
    /** Everything on its way has arrived, and the others have been heard. */
    async exchange() {
      await ledger.idle();
      await peers.exchange(store);
    },
    async close() {
      open.delete(gateway);
      await peers.stop(ledger.close());
      await wal.close();
    },
  };
  open.add(gateway);
  return gateway;
}
type Gateway = Awaited<ReturnType<typeof openGateway>>;

describe('ledgers on one store', () => {
  test('see what the others hold without waiting for a release', async () => {
    const [a, b] = [await openGateway('a'), await openGateway('b')];
    await a.hold('p1', 600);
    expect(b.free()).toBe(BUDGET);
    await a.exchange();
    await b.exchange();
    expect(b.free()).toBe(400);
    expect(b.ledger.balances('c')).toMatchObject({ outsideMicros: 600, availableMicros: 400 });
    expect(await b.hold('p2', 500)).toEqual({ ok: false, reason: 'budget', availableMicros: 400 });
    expect(await b.hold('p2', 400)).toEqual({ ok: true });
    await b.exchange();
    await a.exchange();
    expect(a.free()).toBe(0);
    // Given back by one, free for the other.
    await a.ledger.release('p1');
    await a.exchange();
    await b.exchange();
    expect([a.free(), b.free()]).toEqual([600, 600]);
    expect(b.peers.status()).toMatchObject({ peers: 1, ok: true });
  });

  test('share daily budgets, each day its own', async () => {
    const [a, b] = [await openGateway('a', { daily: 300 }), await openGateway('b', { daily: 300 })];
    await a.hold('p1', 250);
    await a.exchange();
    await b.exchange();
    expect(b.free()).toBe(50);
    expect(await b.hold('p2', 60)).toMatchObject({ ok: false, reason: 'daily_budget' });
    // Tomorrow the day's budget is whole again; the money is still gone.
    b.clock.advance(DAY_MS);
    expect(b.free()).toBe(300);
    expect(b.ledger.balances('c')).toMatchObject({ availableMicros: 750 });
  });

  test('are told more lately than the release knew, and not twice', async () => {
    const [a, b] = [await openGateway('a'), await openGateway('b')];
    const release = (micros: number, asOfMs: number) =>
      b.ledger.setBudgets([
        {
          campaignId: 'c',
          budgetMicros: BUDGET,
          dailyBudgetMicros: 0,
          spentMicros: 100,
          // The middle one is a gateway of a version that tells nothing.
          ledgers: [
            { ledgerId: a.ledger.id, micros },
            { ledgerId: 'ffffffffffff', micros: 50 },
            { ledgerId: b.ledger.id, micros: 777 },
          ],
          asOfMs,
        },
      ]);
    release(300, NOW_MS);
    expect(b.free()).toBe(550);
    await a.hold('p1', 600);
    await a.exchange();
    await b.exchange();
    expect(b.free()).toBe(250);
    // An older figure of the same ledger in a newer release changes nothing.
    release(500, NOW_MS + 1);
    expect(b.free()).toBe(250);
    await a.ledger.charge('p1', 200);
    await a.exchange();
    await b.exchange();
    expect(b.free()).toBe(650);
    // Nor after a restart, which begins with what the release said.
    await b.ledger.snapshot();
    await b.close();
    const again = await openGateway('b');
    expect(again.free()).toBe(350);
    await again.exchange();
    expect(again.free()).toBe(650);
  });

  test.each(['charged', 'cancelled'] as const)(
    'give back what they hold for a placement that another one was told is %s',
    async (outcome) => {
      const [a, b] = [await openGateway('a'), await openGateway('b')];
      await a.hold('p1', 400);
      await a.exchange();
      await b.exchange();
      const { ledger } = b;
      if (outcome === 'charged') await ledger.settle(b.report('p1', 300));
      else await ledger.cancel(b.report('p1', 0));
      await b.ledger.idle();
      // The store knows of a charge that its ledger has not told of yet: the hold stands meanwhile.
      await a.peers.exchange(store);
      const stands = outcome === 'charged' ? 400 : 0;
      expect(a.ledger.balances('c')).toMatchObject({ heldMicros: stands });
      await later();
      await b.exchange();
      await a.exchange();
      expect(a.ledger.balances('c')).toMatchObject({ heldMicros: 0, spentMicros: 0 });
      await a.exchange();
      await b.exchange();
      const left = outcome === 'charged' ? 700 : 1_000;
      expect([a.free(), b.free()]).toEqual([left, left]);
      // A repeat of the report there changes nothing.
      await a.ledger.settle(a.report('p1', 300));
      await a.exchange();
      await b.exchange();
      expect([a.free(), b.free()]).toEqual([left, left]);
    },
  );

  test('charge a settlement once that both were told of', async () => {
    const both = [await openGateway('a'), await openGateway('b')];
    for (const { ledger, report } of both) {
      await ledger.commit(report('p1', 400));
      await ledger.settle(report('p1', 300));
    }
    const rounds = async () => {
      for (const gateway of [...both, ...both, ...both]) {
        await later();
        await gateway.exchange();
      }
    };
    await rounds();
    expect(both.map(({ free }) => free())).toEqual([700, 700]);
    const spent = both
      .toSorted((x, y) => (x.ledger.id < y.ledger.id ? -1 : 1))
      .map(({ ledger }) => ledger.balances('c')!.spentMicros);
    expect(spent).toEqual([300, 0]);
    // Also after both have restarted and read everything again.
    for (const gateway of both.splice(0)) await gateway.close();
    both.push(await openGateway('a'), await openGateway('b'));
    await rounds();
    expect(both.map(({ free }) => free())).toEqual([700, 700]);
  });

  test('tell all of it again after a restart, and what another tenant holds is no concern', async () => {
    const a = await openGateway('a');
    a.peers.start(store);
    await a.hold('p1', 600);
    await a.close();
    // Closing told the rest; a store that was emptied since hears it at the next start.
    expect(
      await store.query(
        "SELECT committed_micros FROM ledger_balances FINAL WHERE campaign_id = 'c'",
      ),
    ).toEqual([{ committed_micros: 600 }]);
    await store.command('TRUNCATE TABLE ledger_balances');
    const again = await openGateway('a');
    await again.exchange();
    const b = await openGateway('b');
    const c = await openGateway('c', { tenantId: 'other' });
    await b.exchange();
    await c.exchange();
    expect([b.free(), c.free()]).toEqual([400, 1_000]);
    // The first release may come later than the gateway, and is of that tenant after all.
    c.serve('t');
    await c.exchange();
    expect(c.free()).toBe(400);
    await c.hold('p2', 100);
    await c.exchange();
    await b.exchange();
    expect(b.free()).toBe(300);
  });

  test('keep what was told while the store does not answer, and tell the rest later', async () => {
    const [a, b] = [await openGateway('a'), await openGateway('b')];
    await a.hold('p1', 100);
    await a.exchange();
    await b.exchange();
    const down = new Proxy(store, {
      get: (target, key) =>
        key === 'insert' || key === 'query'
          ? () => Promise.reject(new Error('down'))
          : Reflect.get(target, key),
    });
    await a.hold('p2', 200);
    await expect(a.peers.exchange(down)).rejects.toThrow('down');
    await expect(b.peers.exchange(down)).rejects.toThrow('down');
    expect(b.free()).toBe(900);
    await a.exchange();
    await b.exchange();
    expect(b.free()).toBe(700);
  });

  test('go on by themselves until they are stopped', async () => {
    const [a, b] = [await openGateway('a'), await openGateway('b')];
    a.peers.start(store);
    b.peers.start(store);
    await a.hold('p1', 250);
    await expect.poll(() => b.free(), { timeout: 10_000 }).toBe(750);
    await b.ledger.settle(b.report('p1', 200));
    await expect.poll(() => a.free(), { timeout: 10_000 }).toBe(800);
    await expect.poll(() => b.free(), { timeout: 10_000 }).toBe(800);
    expect(a.peers.status()).toMatchObject({ peers: 1, ok: true });
    await a.hold('p2', 10);
    // The last word is said at the end.
    await a.close();
    await expect.poll(() => b.free(), { timeout: 10_000 }).toBe(790);
  });

  test('never pass a budget together when they exchange between any two steps', async () => {
    const gateways = [await openGateway('a'), await openGateway('b'), await openGateway('c')];
    let state = 7;
    const random = (n: number) => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((state / 2_147_483_648) * n);
    };
    const hear = async () => {
      // Each tells in the first round, and in the second all hear what was told.
      for (const gateway of [...gateways, ...gateways]) await gateway.exchange();
    };
    /** What each placement truly costs. */
    const truth = new Map<string, number>();
    const held: { reference: string; amount: number }[] = [];
    const committed = () => [...truth.values()].reduce((sum, micros) => sum + micros, 0);
    let refused = 0;
    for (let step = 0; step < 25; step++) {
      const { ledger, hold, report } = gateways[random(3)]!;
      const kind = random(4);
      if (kind < 2) {
        const amount = 1 + random(300);
        if ((await hold(`p${step}`, amount)).ok) {
          held.push({ reference: `p${step}`, amount });
          truth.set(`p${step}`, amount);
        } else refused++;
      } else if (held.length > 0) {
        // Reports reach any of them.
        const [{ reference, amount }] = held.splice(random(held.length), 1) as [(typeof held)[0]];
        const charged = kind === 2 ? random(amount + 1) : 0;
        truth.set(reference, charged);
        if (kind === 2) await ledger.settle(report(reference, charged));
        else await ledger.cancel(report(reference, 0));
      }
      expect(committed()).toBeLessThanOrEqual(BUDGET);
      await hear();
    }
    expect(refused).toBeGreaterThan(0);
    await later();
    await hear();
    await hear();
    for (const { ledger } of gateways) {
      expect(ledger.balances('c')!.availableMicros).toBe(BUDGET - committed());
    }
  });
});

/** By the store's clock at least a millisecond after what it has by now. */
function later(): Promise<void> {
  return new Promise((wake) => setTimeout(wake, 5));
}
