import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { idFactory, manualClock, silentLogger } from '@waggle/core';
import type { DecisionRow, RankResponseBody } from '@waggle/core/contract';
import { BudgetLedger, DecisionLog } from '@waggle/store/ledger';
import { WriteAheadLog } from '@waggle/store/wal';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  buildCatalog,
  Engine,
  ledgerBudgets,
  parsePolicy,
  type RankingRelease,
  replay,
} from '../src/index.js';
import { openTestWorld, TENANT, type TestWorld } from './support/world.js';

let world: TestWorld;
let release: RankingRelease;
let dir: string;
beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny', seed: 3, overrides: { campaigns: 80 } });
  release = await world.release({ policy: parsePolicy({ epsilon: 0.3 }) });
  dir = mkdtempSync(join(tmpdir(), 'waggle-engine-ledger-'));
});
afterAll(async () => {
  await world?.close();
  rmSync(dir, { recursive: true, force: true });
});

test('fills against the durable ledger never pass a budget, survive a restart, and replay from the stored log', async () => {
  const clock = manualClock(world.asOfMs);
  const logger = silentLogger;
  const wal = await WriteAheadLog.open({ dir: join(dir, 'ledger'), logger });
  const ledger = await BudgetLedger.open({ wal, clock, logger });
  const decisionWal = await WriteAheadLog.open({ dir: join(dir, 'decisions'), logger });
  const decisions = await DecisionLog.open({ wal: decisionWal, clock, logger });
  // Little money, so that the network sells out.
  const budgets = [...ledgerBudgets(release)].map((b) => ({
    ...b,
    budgetMicros: b.spentMicros + Math.round((b.budgetMicros - b.spentMicros) / 50),
  }));
  ledger.setBudgets(budgets);
  const id = idFactory(() => clock.nowMs());
  const engine = new Engine({ current: () => release, ledger, decisions, clock, logger, ids: id });
  const publications = release.publications.ids;
  const answers: RankResponseBody[] = [];
  for (let wave = 0; wave < 5; wave++) {
    answers.push(
      ...(await Promise.all(
        Array.from({ length: 100 }, async (_, i) =>
          engine.rank(
            {
              mode: 'fill',
              publication_id: publications[i % publications.length]!,
              slots: [{ id: 'a' }, { id: 'b' }],
            },
            { tenantId: TENANT, requestId: `req_${wave}_${i}`, receivedAtMs: clock.monotonicMs() },
          ),
        ),
      )),
    );
    clock.advance(60_000);
  }
  const held = new Map<string, number>();
  for (const item of answers.flatMap((a) => a.items)) {
    held.set(item.campaign_id, (held.get(item.campaign_id) ?? 0) + item.reserved_micros!);
  }
  expect(held.size).toBeGreaterThan(3);
  for (const b of budgets) {
    const balances = ledger.balances(b.campaignId)!;
    expect(balances.heldMicros).toBe(held.get(b.campaignId) ?? 0);
    expect(balances.heldMicros + balances.outsideMicros).toBeLessThanOrEqual(
      Math.max(b.budgetMicros, balances.outsideMicros),
    );
  }
  expect(answers.some((a) => (a.filtered.budget ?? 0) > 0)).toBe(true);
  engine.close();

  // No goodbye: the ledger's log alone must tell what was held.
  await wal.close();
  const again = await WriteAheadLog.open({ dir: join(dir, 'ledger'), logger });
  const reopened = await BudgetLedger.open({ wal: again, clock, logger });
  reopened.setBudgets(budgets);
  for (const b of budgets) {
    expect(reopened.balances(b.campaignId)!.heldMicros).toBe(held.get(b.campaignId) ?? 0);
  }
  await reopened.close();
  await again.close();

  decisions.start(world.store);
  await decisions.idle();
  await decisions.stop();
  await decisionWal.close();
  const rows = await world.store.query<DecisionRow>(
    'SELECT * FROM decisions FINAL ORDER BY decision_id',
  );
  expect(rows).toHaveLength(500);
  let explored = 0;
  for (const row of rows) {
    const { differences, logged } = await replay(row, release);
    expect(differences).toEqual([]);
    if (logged.explored) explored++;
  }
  expect(explored).toBeGreaterThan(20);
});

test('two ledgers on one store see what the other holds with the next release, wherever it was built', async () => {
  const clock = manualClock(world.asOfMs);
  const logger = silentLogger;
  const open = async (name: string) => {
    const wal = await WriteAheadLog.open({ dir: join(dir, name), logger });
    const ledger = await BudgetLedger.open({ wal, clock, logger, tenantId: TENANT });
    ledger.setBudgets(ledgerBudgets(release));
    ledger.start(world.store);
    return { wal, ledger };
  };
  const pair = [await open('ledger-a'), await open('ledger-b')];
  const nowMs = clock.nowMs();
  const { ids, budgetMicros } = release.campaigns;
  const free = (campaignId: string) => pair[0]!.ledger.balances(campaignId)!.availableMicros;
  const campaignId = ids.find((id) => free(id) > 1_000_000)!;
  const budget = budgetMicros[release.campaigns.ids.indexOf(campaignId)]!;
  const share = Math.floor(free(campaignId) / 2);
  const left = free(campaignId) - 2 * share;
  for (const [i, { ledger }] of pair.entries()) {
    const hold = { campaignId, referenceId: `plc_two_${i}`, decisionId: '', nowMs };
    await ledger.commit({ ...hold, amountMicros: share });
    expect(free(campaignId)).toBe(left + share);
    await ledger.idle();
  }
  const catalog = await buildCatalog(world.store, { tenantId: TENANT, asOfMs: world.asOfMs });
  const next = await world.release({ catalog });
  for (const { ledger, wal } of pair) {
    ledger.setBudgets(ledgerBudgets(next));
    const balances = ledger.balances(campaignId)!;
    expect(balances).toMatchObject({ availableMicros: left, heldMicros: share });
    expect(balances.heldMicros + balances.spentMicros + balances.outsideMicros).toBe(budget - left);
    expect(
      await ledger.reserve({
        campaignId,
        referenceId: 'plc_more',
        amountMicros: left + 1,
        decisionId: '',
        nowMs,
      }),
    ).toMatchObject({ ok: false });
    await ledger.close();
    await wal.close();
  }
});
