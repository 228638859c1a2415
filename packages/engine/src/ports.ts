import type { DecisionRow } from '@waggle/core/contract';

export type ReserveOutcome =
  | { readonly ok: true }
  | {
      readonly ok: false;
      readonly reason: 'budget' | 'daily_budget' | 'unknown_campaign';
      readonly availableMicros: number;
    };

/** What the engine needs of a budget ledger; `BudgetLedger` of @waggle/store is one. */
export interface LedgerPort {
  /** Money a campaign may still commit, micros; O(1), never waits. */
  availableMicros(campaignId: string, nowMs: number): number;
  /**
   * Checks and holds money at once, resolves when that is durable. The same reference twice is held once.
   */
  reserve(request: {
    campaignId: string;
    referenceId: string;
    amountMicros: number;
    decisionId: string;
    nowMs: number;
    /** Tenant of the release that the decision is made with. */
    tenantId: string;
  }): Promise<ReserveOutcome>;
  /** Gives a hold back, durably. Without it, holds of a decision that could not be recorded stay. */
  release?(referenceId: string): Promise<unknown>;
  /**
   * Grows whenever some campaign's money changed, so that an unchanged ledger need not be asked again.
   * A ledger without it is asked for every campaign at every request.
   */
  readonly version?: number;
  /** Names each campaign whose money changes, so that only those are asked again. */
  onChange?(listener: (campaignId: string) => void): { close(): void };
}

/** Where decisions are logged; `DecisionLog` of @waggle/store is one. */
export interface DecisionPort {
  /**
   * Takes the row without waiting; it is durable within the log's stated loss window.
   * @param json the row as `JSON.stringify` writes it, where the caller has it
   */
  record(row: DecisionRow, json?: string): void;
  /** Resolves once the row is durable: what `fill` answers wait for. Without it, `record` is used. */
  recordDurably?(row: DecisionRow): Promise<void>;
}
