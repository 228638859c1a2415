import type { BudgetState, BudgetView } from './budget-view.js';
import type { LedgerPort, ReserveOutcome } from './ports.js';

export interface Reservation {
  readonly campaignId: string;
  readonly referenceId: string;
  readonly amountMicros: number;
  readonly decisionId: string;
  readonly nowMs: number;
  readonly tenantId: string;
}

/** Where a decision looks for money: the ledger when serving, the log when replaying. */
export interface Money {
  /** What every campaign may commit at the decision's n-th draw, from 0. `stale` when the ledger did not answer. */
  draw(nowMs: number, nth: number): { budget: BudgetState; stale: boolean };
  reserve(reservation: Reservation): Promise<ReserveOutcome>;
}

/** The live ledger behind a view; one that throws leaves the last known columns in force. */
export class LedgerMoney implements Money {
  readonly #view: BudgetView;
  readonly #ledger: LedgerPort;
  readonly #onFailure: (cause: unknown) => void;
  #failing = false;

  constructor(view: BudgetView, ledger: LedgerPort, onFailure: (cause: unknown) => void) {
    this.#view = view;
    this.#ledger = ledger;
    this.#onFailure = onFailure;
  }

  draw(nowMs: number): { budget: BudgetState; stale: boolean } {
    try {
      this.#view.refresh(nowMs);
      this.#failing = false;
      return { budget: this.#view, stale: false };
    } catch (cause) {
      // Once per outage, not once per request.
      if (!this.#failing) this.#onFailure(cause);
      this.#failing = true;
      return { budget: this.#view, stale: true };
    }
  }

  reserve(reservation: Reservation): Promise<ReserveOutcome> {
    return this.#ledger.reserve(reservation);
  }
}
