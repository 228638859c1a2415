import { type Clock, DAY_MS, idFactory, silentLogger } from '@waggle/core';
import type { DecisionRow } from '@waggle/core/contract';
import {
  type DecisionPort,
  Engine,
  type EngineOptions,
  type LedgerPort,
  ledgerBudgets,
  type RankingRelease,
  type ReserveOutcome,
} from '../../src/index.js';

/** A ledger in memory: the arithmetic of budgets without their durability, which the store's own tests cover. */
export class MemoryLedger implements LedgerPort {
  version = 0;
  readonly campaigns = new Map<
    string,
    { budget: number; daily: number; committed: number; day: number; today: number }
  >();
  readonly references = new Map<string, { campaignId: string; amount: number }>();
  /** When set, every call fails with it. */
  broken: Error | undefined;
  /** Resolves before a reservation does, as a disk would. */
  commit: () => Promise<void> = () => Promise.resolve();
  asked = 0;

  constructor(release: RankingRelease) {
    for (const b of ledgerBudgets(release)) {
      this.set(b.campaignId, b.budgetMicros - b.spentMicros, b.dailyBudgetMicros);
    }
  }

  set(campaignId: string, budget: number, daily = 0): void {
    this.campaigns.set(campaignId, { budget, daily, committed: 0, day: -1, today: 0 });
    this.version++;
  }

  setAll(budget: number): void {
    for (const id of this.campaigns.keys()) this.set(id, budget);
  }

  availableMicros(campaignId: string, nowMs: number): number {
    this.asked++;
    if (this.broken !== undefined) throw this.broken;
    const c = this.campaigns.get(campaignId);
    if (c === undefined) return 0;
    const left = c.budget - c.committed;
    const today = c.day === Math.floor(nowMs / DAY_MS) ? c.today : 0;
    return c.daily > 0 ? Math.min(left, c.daily - today) : left;
  }

  async reserve(r: {
    campaignId: string;
    referenceId: string;
    amountMicros: number;
    nowMs: number;
  }): Promise<ReserveOutcome> {
    const availableMicros = this.availableMicros(r.campaignId, r.nowMs);
    const c = this.campaigns.get(r.campaignId);
    if (c === undefined) return { ok: false, reason: 'unknown_campaign', availableMicros: 0 };
    if (r.amountMicros > availableMicros) return { ok: false, reason: 'budget', availableMicros };
    const day = Math.floor(r.nowMs / DAY_MS);
    if (c.day !== day) Object.assign(c, { day, today: 0 });
    c.committed += r.amountMicros;
    c.today += r.amountMicros;
    this.references.set(r.referenceId, { campaignId: r.campaignId, amount: r.amountMicros });
    this.version++;
    await this.commit();
    return { ok: true };
  }
}

export class MemoryDecisions implements DecisionPort {
  readonly rows: DecisionRow[] = [];
  /** The texts that came with them. */
  readonly texts: (string | undefined)[] = [];
  record(row: DecisionRow, json?: string): void {
    this.rows.push(row);
    this.texts.push(json);
  }
  get last(): DecisionRow {
    return this.rows.at(-1)!;
  }
}

/** Ids of a clock, numbered, so that no two are alike in one moment. */
export function numberedIds(clock: Clock): EngineOptions['ids'] {
  const id = idFactory(() => clock.nowMs());
  let n = 0;
  return (kind) => `${id(kind)}_${n++}`;
}

/** An engine on a release, with money for everything. */
export function engineOn(
  release: RankingRelease,
  clock: Clock,
  over: Partial<EngineOptions> = {},
): { engine: Engine; ledger: MemoryLedger; decisions: MemoryDecisions } {
  const ledger = new MemoryLedger(release);
  ledger.setAll(1e15);
  const decisions = new MemoryDecisions();
  const engine = new Engine({
    current: () => release,
    ...{ ledger, decisions, clock, logger: silentLogger },
    ids: numberedIds(clock),
    ...over,
  });
  return { engine, ledger, decisions };
}
