import { spawn } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { manualClock, silentLogger } from '@waggle/core';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BudgetLedger, DecisionLog } from '../src/ledger/index.js';
import { WriteAheadLog } from '../src/wal/index.js';
import { fillDecision } from './fixtures/fill-decision.js';
import { fixtureCommand } from './fixtures/owner-command.js';

const NOW_MS = Date.parse('2026-03-02T12:00:00Z');
const BUDGET = 1_000;
const HOLD = 100;

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-orphans-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function openBoth(dir: string, segmentBytes?: number) {
  const common = { clock: manualClock(NOW_MS), logger: silentLogger };
  const decisionWal = await WriteAheadLog.open({
    dir: join(dir, 'decisions'),
    ...(segmentBytes === undefined ? {} : { segmentBytes }),
  });
  const ledgerWal = await WriteAheadLog.open({ dir: join(dir, 'ledger') });
  const ledger = await BudgetLedger.open({
    wal: ledgerWal,
    ...common,
    decisionSequence: () => decisionWal.durableSequence,
  });
  const decisions = await DecisionLog.open({ wal: decisionWal, ...common });
  ledger.setBudgets([{ campaignId: 'c', budgetMicros: BUDGET, dailyBudgetMicros: 0 }]);
  return {
    decisionWal,
    ledger,
    decisions,
    hold: (n: number) =>
      ledger.reserve({
        campaignId: 'c',
        referenceId: `plc_${n}`,
        amountMicros: HOLD,
        decisionId: `dec_${n}`,
        nowMs: NOW_MS,
      }),
    recover: () => ledger.releaseOrphans(decisionWal, () => decisions.recordedFills()),
    held: () => ledger.balances('c')!.heldMicros,
    async close() {
      await Promise.all([decisions.stop(0), ledger.close()]);
      await Promise.all([decisionWal.close(), ledgerWal.close()]);
    },
  };
}

describe('holds whose decision was never recorded', () => {
  test('are given back after the process was killed between the two, once', async () => {
    const dir = join(root, 'killed');
    const { command, args } = fixtureCommand('unrecorded-fill.ts', dir);
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise<void>((held) => child.stdout.once('data', () => held()));
    child.kill('SIGKILL');
    await new Promise((ended) => child.once('exit', ended));

    const first = await openBoth(dir);
    expect(first.held()).toBe(2 * HOLD);
    expect(await first.recover()).toEqual({ released: 1, micros: HOLD });
    expect(first.held()).toBe(HOLD);
    // The recorded one is as it was: it can still be charged, the other cannot.
    await expect(first.ledger.charge('plc_2', HOLD)).rejects.toMatchObject({
      code: 'WAGGLE_LEDGER_CONFLICT',
    });
    await first.close();
    const second = await openBoth(dir);
    expect(await second.recover()).toEqual({ released: 0, micros: 0 });
    expect(second.held()).toBe(HOLD);
    await second.close();
  });

  test('are exactly those, wherever the log of decisions was cut', async () => {
    const dir = join(root, 'whole');
    const n = 4;
    const whole = await openBoth(dir);
    for (let i = 0; i < n; i++) {
      await whole.hold(i);
      whole.decisions.record({ ...fillDecision(`dec_other_${i}`), type: 'decision.offers' });
      await whole.decisions.recordDurably(fillDecision(`dec_${i}`));
    }
    await whole.close();
    const [segment] = (await readdir(join(dir, 'decisions'))).filter((f) => f.endsWith('.wal'));
    const { length } = await readFile(join(dir, 'decisions', segment!));
    const outcomes = new Set<number>();
    // A stride that meets every position of a record's head and payload in turn keeps this within seconds.
    const ends = Array.from({ length: Math.ceil((length - 16) / 37) }, (_, i) => 16 + 37 * i);
    for (const end of [...ends, length]) {
      const copy = join(root, `cut-${end}`);
      await cp(dir, copy, { recursive: true });
      await truncate(join(copy, 'decisions', segment!), end);
      const cut = await openBoth(copy);
      const recorded = await cut.decisions.recordedFills();
      const { released } = await cut.recover();
      // Holds that remember more of the log than is left of it are not touched: it may be another log.
      const judged = Array.from({ length: n }, (_, i) => i).filter(
        (i) => cut.decisionWal.lastSequence >= 2 * i,
      );
      expect(released).toBe(judged.filter((i) => !recorded.has(`dec_${i}`)).length);
      expect(cut.held()).toBe(HOLD * (n - released));
      expect(cut.ledger.availableMicros('c', NOW_MS)).toBe(BUDGET - cut.held());
      outcomes.add(released);
      await cut.close();
      await rm(copy, { recursive: true });
    }
    expect([...outcomes].sort()).toEqual([0, 1]);
  });

  test('stay where the log has been cut behind what was forwarded', async () => {
    const dir = join(root, 'forwarded');
    const first = await openBoth(dir, 400);
    await first.hold(1);
    for (let i = 0; i < 5; i++) await first.decisions.recordDurably(fillDecision(`dec_x${i}`));
    await first.decisionWal.truncateBefore(first.decisionWal.durableSequence);
    await first.hold(2);
    await first.ledger.snapshot();
    await first.close();
    const second = await openBoth(dir, 400);
    // The decision of the first may have been among those that are gone; that of the second is known to be missing.
    expect(await second.recover()).toEqual({ released: 1, micros: HOLD });
    expect(second.held()).toBe(HOLD);
    expect(await second.ledger.release('plc_1')).toMatchObject({ applied: true });
    await second.close();
  });

  test('stay when the log of decisions is another one', async () => {
    const dir = join(root, 'replaced');
    const first = await openBoth(dir);
    await first.decisions.recordDurably(fillDecision('dec_x'));
    await first.hold(1);
    await first.close();
    await rm(join(dir, 'decisions'), { recursive: true });
    const second = await openBoth(dir);
    expect(await second.recover()).toEqual({ released: 0, micros: 0 });
    expect(second.held()).toBe(HOLD);
    await second.close();
  });
});
