import { DAY_MS } from '@waggle/core';
import { BitSet } from '@waggle/retrieval';
import type { LedgerPort } from './ports.js';

/** Which campaigns can pay, as columns over one release's campaigns. */
export interface BudgetState {
  /** float64 [nCampaigns]: micros each campaign may still commit. */
  readonly available: Float64Array;
  /** Campaigns with any money left. */
  readonly pass: BitSet;
  /** Differs whenever `pass` does. */
  readonly passVersion: number;
  /** Differs whenever `available` does. */
  readonly version: number;
}

/**
 * The ledger's answers as columns over one release's campaigns, so that a request checks hundreds of budgets
 * with one loop. Asks again only for campaigns that changed, when the ledger can tell.
 */
export class BudgetView implements BudgetState {
  readonly available: Float64Array;
  readonly pass: BitSet;
  passVersion = 0;
  version = 0;
  readonly #ids: readonly string[];
  readonly #rowOf: (campaignId: string) => number | undefined;
  readonly #ledger: LedgerPort;
  #subscription: { close(): void } | undefined;
  readonly #changed = new Set<number>();
  #seenVersion = Number.NaN;
  #seenDay = Number.NaN;

  constructor(
    ids: readonly string[],
    rowOf: (campaignId: string) => number | undefined,
    ledger: LedgerPort,
    /** What is assumed while the ledger has not answered yet. */
    lastKnown: (row: number) => number,
  ) {
    this.#ids = ids;
    this.#rowOf = rowOf;
    this.#ledger = ledger;
    this.available = Float64Array.from(ids, (_, row) => lastKnown(row));
    this.pass = new BitSet(ids.length);
    for (let row = 0; row < ids.length; row++) if (this.available[row]! > 0) this.pass.add(row);
    this.#subscription = ledger.onChange?.((id) => {
      const row = this.#rowOf(id);
      if (row !== undefined) this.#changed.add(row);
    });
  }

  /**
   * Brings the columns up to date. O(changed campaigns), or O(campaigns) on the first call, on a new UTC day
   * (daily budgets start again) and for a ledger that cannot tell what changed.
   * @throws whatever the ledger throws; the columns then keep their last values
   */
  refresh(nowMs: number): void {
    const day = Math.floor(nowMs / DAY_MS);
    const { version } = this.#ledger;
    // Without news of single campaigns, an unchanged version (never true of an absent one) is enough.
    const told = this.#subscription !== undefined || version === this.#seenVersion;
    if (day !== this.#seenDay || !told) {
      let moved = false;
      for (let row = 0; row < this.#ids.length; row++) moved = this.#ask(row, nowMs) || moved;
      if (moved || Number.isNaN(this.#seenDay)) this.passVersion++;
      this.#changed.clear();
      this.#seenDay = day;
      this.#seenVersion = version ?? Number.NaN;
    } else if (this.#changed.size > 0) {
      let moved = false;
      for (const row of this.#changed) moved = this.#ask(row, nowMs) || moved;
      this.#changed.clear();
      if (moved) this.passVersion++;
    }
  }

  /** Stops listening. Decisions that are still on their way have it ask again for every campaign whenever money moved. */
  close(): void {
    this.#subscription?.close();
    this.#subscription = undefined;
  }

  /** True when the campaign went from having money to having none, or back. */
  #ask(row: number, nowMs: number): boolean {
    const micros = this.#ledger.availableMicros(this.#ids[row]!, nowMs);
    if (micros !== this.available[row]) {
      this.available[row] = micros;
      this.version++;
    }
    const passes = micros > 0;
    if (this.pass.has(row) === passes) return false;
    if (passes) this.pass.add(row);
    else this.pass.delete(row);
    return true;
  }
}
