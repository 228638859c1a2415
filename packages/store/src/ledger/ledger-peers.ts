import { type Clock, type Logger, systemClock } from '@waggle/core';
import type { Store } from '../store.js';
import type { BudgetLedger, PeerCommitment, SettledElsewhere } from './budget-ledger.js';

export interface LedgerPeersOptions {
  readonly ledger: BudgetLedger;
  /** The ledger's clock: its day is the one whose daily budgets are told of. */
  readonly clock: Clock;
  readonly logger: Logger;
  /** Whose money it is by now: of the release that is served, which may come later than the ledger. */
  readonly tenantId: () => string;
  /** Pause between two exchanges. @default 2_000 */
  readonly intervalMs?: number;
  /** Longest pause while the store is down. @default 30_000 */
  readonly maxBackoffMs?: number;
}

export interface LedgerPeersStatus {
  /** Other ledgers that have told of their money. */
  readonly peers: number;
  /** Since the last exchange that succeeded, or since the start; 0 when not started. */
  readonly ageMs: number;
  readonly ok: boolean;
}

interface Told extends PeerCommitment {
  /** What its ledger had committed by then is told; by the store's clock, UTC ms. */
  readonly asOfMs: number;
}

interface Settled extends SettledElsewhere {
  readonly eventId: string;
  readonly insertedAtMs: number;
}

const PAGE_ROWS = 10_000;
/** The campaign of a row that says only that nothing else has changed. */
const NO_CAMPAIGN = '';
/** Rows become visible some time after the store has stamped them; the last moments are read again. */
const OVERLAP_MS = 10_000;

/**
 * Ledgers on one store tell each other what they have committed, so that gateways beside each other see their
 * campaigns' money within a pause or two instead of at the next release, and give back what they hold for placements
 * that another has settled. The store need not answer: what was told last stays in force.
 */
export class LedgerPeers {
  readonly #options: LedgerPeersOptions;
  readonly #untold = new Set<string>();
  readonly #subscription: { close(): void };
  /** The tenant that has been told; another one hears all of it. */
  #toldTenant: string | undefined;
  /** Settled elsewhere and not given back yet. */
  readonly #waiting = new Map<string, Settled>();
  #store: Store | undefined;
  #loop: Promise<void> | undefined;
  #stopping = false;
  #wake: (() => void) | undefined;
  #abort = new AbortController();
  #version = 0;
  /** Where reading goes on. */
  #read: { insertedAtMs: number; eventId: string } | undefined;
  #peers = 0;
  #freshSinceMs = 0;
  #failing = false;

  constructor(options: LedgerPeersOptions) {
    this.#options = options;
    this.#subscription = options.ledger.onChange((id) => this.#untold.add(id));
  }

  start(store: Store): void {
    if (this.#loop !== undefined) return;
    this.#store = store;
    this.#freshSinceMs = this.#options.clock.monotonicMs();
    this.#loop = this.#run(store);
  }

  /**
   * Reads no more at once, and tells the last word, for at most `drainMs`, when the ledger's entries are in the store.
   * @param forwarded settles then @default they are
   */
  async stop(forwarded?: Promise<unknown>, drainMs = 2_000): Promise<void> {
    this.#stopping = true;
    this.#wake?.();
    await Promise.all([this.#loop, forwarded]);
    this.#subscription.close();
    const store = this.#store;
    this.#store = undefined;
    if (store === undefined || this.#failing) return;
    const timer = setTimeout(() => this.#abort.abort(), drainMs);
    await this.#tell(store).catch(() => {});
    clearTimeout(timer);
  }

  status(): LedgerPeersStatus {
    const ageMs =
      this.#loop === undefined ? 0 : this.#options.clock.monotonicMs() - this.#freshSinceMs;
    return { peers: this.#peers, ageMs, ok: !this.#failing };
  }

  /**
   * Tells and reads once. `start` does so by itself.
   * @throws the store's errors, and the ledger's log's: what was not told is told the next time
   */
  async exchange(store: Store): Promise<void> {
    const tenantId = this.#options.tenantId();
    await this.#tell(store, tenantId);
    const told = await this.#readCommitments(store, tenantId);
    this.#options.ledger.setPeers(told.filter(({ campaignId }) => campaignId !== NO_CAMPAIGN));
    this.#peers = new Set(told.map(({ ledgerId }) => ledgerId)).size;
    if (told.length === 0) return;
    await this.#readSettled(store, tenantId);
    await this.#yield(told);
  }

  async #run(store: Store): Promise<void> {
    const { logger, clock, intervalMs = 2_000, maxBackoffMs = 30_000 } = this.#options;
    let pauseMs = intervalMs;
    while (!this.#stopping) {
      try {
        await this.exchange(store);
        if (this.#failing) logger.info({}, 'what other gateways commit is seen again');
        this.#failing = false;
        this.#freshSinceMs = clock.monotonicMs();
        pauseMs = intervalMs;
      } catch (err) {
        if (this.#stopping) break;
        if (!this.#failing) {
          logger.warn(
            { err },
            'what other gateways commit is not seen until the store answers; what was seen last stays in force',
          );
        }
        this.#failing = true;
        pauseMs = Math.min(maxBackoffMs, pauseMs * 2);
      }
      await this.#pause(pauseMs);
    }
  }

  #pause(ms: number): Promise<void> {
    if (this.#stopping) return Promise.resolve();
    return new Promise((fulfil) => {
      const timer = setTimeout(done, ms);
      this.#wake = done;
      function done() {
        clearTimeout(timer);
        fulfil();
      }
    });
  }

  async #tell(store: Store, tenantId = this.#options.tenantId()): Promise<void> {
    const { ledger, clock } = this.#options;
    if (tenantId !== this.#toldTenant) {
      for (const id of ledger.committedCampaigns()) this.#untold.add(id);
      this.#toldTenant = tenantId;
      this.#read = undefined;
    }
    // Without others nobody waits to hear that nothing has changed.
    if (this.#untold.size === 0 && this.#peers === 0) return;
    // Asked before the money is looked at: whatever the store has of this ledger by then, is told.
    const [now] = await store.query<{ ms: number }>(
      'SELECT toUnixTimestamp64Milli(now64(3)) AS ms',
      { signal: this.#abort.signal },
    );
    const asOf = new Date(now!.ms).toISOString();
    const ids = [...this.#untold];
    this.#untold.clear();
    const nowMs = clock.nowMs();
    // The system's time, not the ledger's: a sample's clock starts anew with every start.
    this.#version = Math.max(this.#version + 1, systemClock.nowMs());
    const rows = [...ids, NO_CAMPAIGN].map((campaignId) => {
      const { committedMicros, day, dayMicros } = ledger.commitment(campaignId, nowMs);
      return {
        tenant_id: tenantId,
        ledger_id: ledger.id,
        campaign_id: campaignId,
        version: this.#version,
        committed_micros: committedMicros,
        day,
        day_micros: dayMicros,
        as_of: asOf,
      };
    });
    try {
      await store.insert('ledger_balances', rows, { signal: this.#abort.signal });
    } catch (cause) {
      for (const id of ids) this.#untold.add(id);
      throw cause;
    }
  }

  #readCommitments(store: Store, tenantId: string): Promise<Told[]> {
    const { ledger } = this.#options;
    return store.query<Told>(
      `SELECT ledger_id AS ledgerId, campaign_id AS campaignId, committed_micros AS committedMicros,
         day, day_micros AS dayMicros, toUnixTimestamp64Milli(as_of) AS asOfMs
       FROM ledger_balances FINAL
       WHERE tenant_id = {tenant:String} AND ledger_id != {own:String}`,
      { params: { tenant: tenantId, own: ledger.id }, signal: this.#abort.signal },
    );
  }

  /** Finds what others settled since the last time and this ledger holds money for. */
  async #readSettled(store: Store, tenantId: string): Promise<void> {
    const { ledger } = this.#options;
    let from = this.#read ?? { insertedAtMs: 0, eventId: '' };
    let newestMs = from.insertedAtMs;
    for (;;) {
      const page = await store.query<
        Omit<Settled, 'charged'> & { readonly charged: number | boolean }
      >(
        `SELECT event_id AS eventId, ledger_id AS ledgerId, reference_id AS referenceId, campaign_id AS campaignId,
           type = 'ledger.charge' AS charged, toUnixTimestamp64Milli(inserted_at) AS insertedAtMs
         FROM ledger_settled
         WHERE tenant_id = {tenant:String}
           AND (inserted_at, event_id) > (fromUnixTimestamp64Milli({since:Int64}, 'UTC'), {after:String})
         ORDER BY inserted_at, event_id LIMIT ${PAGE_ROWS}`,
        {
          params: { tenant: tenantId, since: from.insertedAtMs, after: from.eventId },
          signal: this.#abort.signal,
        },
      );
      for (const row of page) {
        const settled = { ...row, charged: Boolean(row.charged) };
        if (ledger.concerns(settled)) this.#waiting.set(row.eventId, settled);
      }
      const last = page.at(-1);
      if (last !== undefined) {
        from = last;
        newestMs = last.insertedAtMs;
      }
      if (page.length < PAGE_ROWS) break;
    }
    this.#read = { insertedAtMs: Math.max(0, newestMs - OVERLAP_MS), eventId: '' };
  }

  /**
   * Gives back what others settled. What they charged waits until what they have told holds it: it would count nowhere
   * meanwhile.
   */
  async #yield(told: readonly Told[]): Promise<void> {
    if (this.#waiting.size === 0) return;
    const { ledger, logger } = this.#options;
    const asOfMs = new Map<string, number>();
    for (const peer of told) {
      asOfMs.set(peer.ledgerId, Math.max(peer.asOfMs, asOfMs.get(peer.ledgerId) ?? 0));
    }
    let yielded = 0;
    for (const [eventId, settled] of this.#waiting) {
      const toldMs = asOfMs.get(settled.ledgerId) ?? 0;
      if (settled.charged && toldMs <= settled.insertedAtMs) continue;
      if ((await ledger.yieldTo(settled)).applied) yielded++;
      this.#waiting.delete(eventId);
    }
    if (yielded > 0) {
      logger.info({ references: yielded }, 'gave back money of placements settled by others');
    }
  }
}
