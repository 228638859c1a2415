import { isDeepStrictEqual } from 'node:util';
import { type Clock, DAY_MS, type Logger, WaggleError } from '@waggle/core';
import { ledgerError } from '../errors.js';
import type { Store } from '../store.js';
import type { WriteAheadLog } from '../wal/index.js';
import { Forwarder, type ForwarderStatus } from './forwarder.js';
import {
  available,
  type Campaign,
  holdOn,
  newCampaign,
  type Reference,
  settleOn,
  uncommitted,
  usedOn,
} from './ledger-accounts.js';
import { identityOf, type LedgerIdentity } from './ledger-identity.js';
import {
  type BudgetFigures,
  entryOf,
  type LedgerRecord,
  type Movement,
  readRecord,
  type Shares,
  writeRecord,
} from './ledger-records.js';
import { LedgerSnapshot, newerLedger, readSnapshot } from './ledger-snapshot.js';

export interface BudgetLedgerOptions {
  /** A log of its own; the snapshot lies beside it. */
  readonly wal: WriteAheadLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Tenant of the rows sent to `ledger_entries` where the reservation named none. @default '' : nothing is sent */
  readonly tenantId?: string;
  /**
   * Highest sequence that the log of decisions has on disk. Each hold remembers it, so that `releaseOrphans` knows where
   * the decision that it was made for must stand.
   */
  readonly decisionSequence?: () => number;
  /** A snapshot is taken by itself after so many records. @default 50_000 */
  readonly snapshotEvery?: number;
  /** Settled references are remembered so long for idempotence; reports older than that are not. @default 7 days */
  readonly keepSettledMs?: number;
  readonly intervalMs?: number;
  readonly maxBackoffMs?: number;
}

export interface BudgetRow {
  readonly campaignId: string;
  readonly budgetMicros: number;
  /** 0 = no daily limit. */
  readonly dailyBudgetMicros: number;
  /** Money that is gone or held outside this ledger. @default 0 */
  readonly spentMicros?: number;
  /** What budget ledgers hold or have charged, this one among them or not; its own share is left out. */
  readonly ledgers?: readonly LedgerShare[];
  /** When these figures were true, UTC ms. @default as new as the campaign's newest */
  readonly asOfMs?: number;
}

export interface LedgerShare {
  /** '' = entries of the time before ledgers had ids. */
  readonly ledgerId: string;
  readonly micros: number;
}

/** What a ledger has committed of a campaign's money, as others need to know it. */
export interface Commitment {
  /** Held and charged. */
  readonly committedMicros: number;
  /** A UTC day, in days since 1970, and what of it counts for that day's budget. */
  readonly day: number;
  readonly dayMicros: number;
}

/** What another ledger says that it has committed. */
export interface PeerCommitment extends Commitment {
  readonly ledgerId: string;
  readonly campaignId: string;
}

/** A reference that another ledger has charged or given back. */
export interface SettledElsewhere {
  readonly ledgerId: string;
  readonly referenceId: string;
  readonly campaignId: string;
  readonly charged: boolean;
}

export interface ReserveRequest {
  readonly campaignId: string;
  /** What the money is for; holds once, however often it is asked. */
  readonly referenceId: string;
  readonly amountMicros: number;
  readonly decisionId: string;
  /** UTC milliseconds; its day is the one whose daily budget is used. */
  readonly nowMs: number;
  /** Whose money it is: the tenant of every entry of this reference. @default the ledger's */
  readonly tenantId?: string;
}

/** What became of a placement, told by whoever runs it. `nowMs` is when it happened. */
export type Report = ReserveRequest;

export type ReserveResult =
  | { readonly ok: true }
  | {
      readonly ok: false;
      readonly reason: 'budget' | 'daily_budget' | 'unknown_campaign';
      readonly availableMicros: number;
    };

export interface Settlement {
  /** True when this call settled the reservation, false when an earlier one had. */
  readonly applied: boolean;
  /** Given back to the campaign. */
  readonly releasedMicros: number;
  readonly chargedMicros: number;
  /** Asked for beyond what the hard stop allows; never charged. */
  readonly refusedMicros: number;
}

/** Accounts of a campaign; `available + held + spent + outside = budget` always. */
export interface Balances {
  readonly budgetMicros: number;
  /** 0 = no daily limit. */
  readonly dailyBudgetMicros: number;
  /** Of the whole budget, whatever the day's; below 0 where more was committed than there is. */
  readonly availableMicros: number;
  readonly heldMicros: number;
  readonly spentMicros: number;
  readonly outsideMicros: number;
}

/** Campaigns whose figures one record holds. */
const BUDGETS_SLICE = 1_000;

/**
 * Money that campaigns may still commit: a reservation is checked and held in one step, before anything is awaited,
 * so that any number of concurrent ones never pass the budget together; it is promised to the caller once it is
 * durable. Hard stop: held + spent + outside never exceeds the budget, and what is held or charged on a UTC day
 * never exceeds the daily budget. State = snapshot + log. What other ledgers on the same store commit counts as money
 * outside, as far as this one has been told (`LedgerPeers`).
 */
export class BudgetLedger {
  readonly #wal: WriteAheadLog;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #forwarder: Forwarder | undefined;
  readonly #decisionSequence: (() => number) | undefined;
  readonly #snapshotEvery: number;
  readonly #keepSettledMs: number;
  readonly #identity: LedgerIdentity;
  readonly #campaigns = new Map<string, Campaign>();
  readonly #references = new Map<string, Reference>();
  /** By campaign what other ledgers have told. */
  #peers: ReadonlyMap<string, readonly PeerCommitment[]> = new Map();
  readonly #listeners = new Set<(campaignId: string) => void>();
  #version = 0;
  #sinceSnapshot = 0;
  #snapshotSequence = 0;
  #snapshotting: Promise<void> | undefined;
  #snapshot: LedgerSnapshot | undefined;
  #snapshots = 0;
  #closed = false;

  /**
   * Rebuilds the state.
   * @throws WAGGLE_LEDGER_CORRUPT, WAGGLE_LEDGER_NEWER, WAGGLE_WAL_CORRUPT
   */
  static async open(options: BudgetLedgerOptions): Promise<BudgetLedger> {
    let ledger: BudgetLedger | undefined;
    const tenantId = options.tenantId ?? '';
    const identity = await identityOf(options.wal);
    const forwarder =
      tenantId === ''
        ? undefined
        : await Forwarder.open({
            wal: options.wal,
            clock: options.clock,
            logger: options.logger,
            records: {
              rowsOf(payload, sequence) {
                const record = readRecord(payload);
                if (record.t === 'budgets') return [];
                const ledgerId = sequence > identity.since ? identity.id : '';
                return [{ table: 'ledger_entries', row: entryOf(record, tenantId, ledgerId) }];
              },
            },
            mayRemoveBefore: () => (ledger?.snapshotSequence ?? 0) + 1,
            ...(options.intervalMs === undefined ? {} : { intervalMs: options.intervalMs }),
            ...(options.maxBackoffMs === undefined ? {} : { maxBackoffMs: options.maxBackoffMs }),
          });
    ledger = new BudgetLedger(options, forwarder, identity);
    await ledger.#recover();
    return ledger;
  }

  private constructor(
    options: BudgetLedgerOptions,
    forwarder: Forwarder | undefined,
    identity: LedgerIdentity,
  ) {
    this.#identity = identity;
    this.#wal = options.wal;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#forwarder = forwarder;
    this.#decisionSequence = options.decisionSequence;
    this.#snapshotEvery = options.snapshotEvery ?? 50_000;
    this.#keepSettledMs = options.keepSettledMs ?? 7 * DAY_MS;
  }

  /** Names this ledger's directory among all that send to one store. */
  get id(): string {
    return this.#identity.id;
  }

  /** Grows with every change of any campaign's money. */
  get version(): number {
    return this.#version;
  }

  /** Everything up to here is in the snapshot. */
  get snapshotSequence(): number {
    return this.#snapshotSequence;
  }

  /** Names each campaign whose money changes. The listener must not throw. */
  onChange(listener: (campaignId: string) => void): { close(): void } {
    this.#listeners.add(listener);
    return { close: () => this.#listeners.delete(listener) };
  }

  /**
   * Budgets of a release's catalog. Held and charged money stays as it is. Figures replace those of an earlier or the
   * same time and are ignored when newer ones are known, so that a release rolled back to brings no old budget back;
   * they survive a restart. Of the same time, the money outside is the greater one. A campaign left out keeps its own. O(rows).
   * @throws WAGGLE_LEDGER_AMOUNT
   */
  setBudgets(rows: Iterable<BudgetRow>): void {
    const changed: BudgetFigures[] = [];
    // A catalog of a time to come must not shut out all that follow it.
    const latestMs = this.#clock.nowMs() + DAY_MS;
    let outdated = 0;
    for (const row of rows) {
      const { campaignId, budgetMicros, dailyBudgetMicros } = row;
      let spentMicros = row.spentMicros ?? 0;
      const shares: Shares = [];
      for (const { ledgerId, micros } of row.ledgers ?? []) {
        if (this.#isOwn(ledgerId)) continue;
        spentMicros += micros;
        shares.push([ledgerId, micros]);
      }
      checkAmount(budgetMicros, 'budgetMicros');
      checkAmount(dailyBudgetMicros, 'dailyBudgetMicros');
      checkAmount(spentMicros, 'spentMicros');
      const known = this.#campaigns.get(campaignId)?.asOf ?? 0;
      const asOf = Math.min(row.asOfMs ?? known, latestMs);
      if (asOf < known) {
        outdated++;
        continue;
      }
      const figures: BudgetFigures = [
        campaignId,
        budgetMicros,
        dailyBudgetMicros,
        spentMicros,
        asOf,
        shares,
      ];
      if (this.#setFigures(figures)) changed.push(figures);
    }
    for (let i = 0; i < changed.length; i += BUDGETS_SLICE) {
      this.#writeBudgets(changed.slice(i, i + BUDGETS_SLICE));
    }
    if (outdated > 0) {
      this.#logger.info(
        { campaigns: outdated },
        'budgets stay at newer figures than the release’s',
      );
    }
  }

  /** Micros the campaign may still commit at this time; 0 for an unknown one. O(1), no allocation. */
  availableMicros(campaignId: string, nowMs: number): number {
    const campaign = this.#campaigns.get(campaignId);
    return campaign === undefined ? 0 : available(campaign, Math.floor(nowMs / DAY_MS));
  }

  /** Held and charged on this time's UTC day, by other ledgers too as far as they have told. O(1). */
  usedOnDayMicros(campaignId: string, nowMs: number): number {
    const campaign = this.#campaigns.get(campaignId);
    return campaign === undefined ? 0 : usedOn(campaign, Math.floor(nowMs / DAY_MS));
  }

  /** The campaign's accounts, or undefined for an unknown one. */
  balances(campaignId: string): Balances | undefined {
    const campaign = this.#campaigns.get(campaignId);
    if (campaign === undefined) return undefined;
    return {
      budgetMicros: campaign.budget,
      dailyBudgetMicros: campaign.daily,
      availableMicros: uncommitted(campaign),
      heldMicros: campaign.held,
      spentMicros: campaign.spent,
      outsideMicros: campaign.outside + campaign.beyond,
    };
  }

  /** Campaigns of which this ledger holds or has charged money. O(campaigns). */
  *committedCampaigns(): Generator<string> {
    for (const [id, { held, spent }] of this.#campaigns) if (held + spent > 0) yield id;
  }

  /** What this ledger tells others about a campaign. O(1). */
  commitment(campaignId: string, nowMs: number): Commitment {
    const campaign = this.#campaigns.get(campaignId);
    const day = Math.floor(nowMs / DAY_MS);
    return {
      committedMicros: campaign === undefined ? 0 : campaign.held + campaign.spent,
      day,
      dayMicros: campaign?.days.get(day) ?? 0,
    };
  }

  /**
   * All that other ledgers have told by now; it takes the place of what was told before, and of what the release
   * counted for these ledgers. It is not kept: after a restart the release's figures stand until it is told again.
   * O(commitments).
   */
  setPeers(commitments: Iterable<PeerCommitment>): void {
    const peers = new Map<string, PeerCommitment[]>();
    for (const told of commitments) {
      if (this.#isOwn(told.ledgerId)) continue;
      const list = peers.get(told.campaignId);
      if (list === undefined) peers.set(told.campaignId, [told]);
      else list.push(told);
    }
    const before = this.#peers;
    this.#peers = peers;
    for (const ids of [before.keys(), peers.keys()]) {
      for (const id of ids) {
        const campaign = this.#campaigns.get(id);
        if (campaign !== undefined && this.#countPeers(id, campaign)) this.#changed(id);
      }
    }
  }

  /** Whether it matters here that another ledger settled this reference. O(1). */
  concerns({ ledgerId, referenceId, campaignId, charged }: SettledElsewhere): boolean {
    if (this.#isOwn(ledgerId)) return false;
    const known = this.#references.get(referenceId);
    if (known?.campaign !== campaignId) return false;
    if (known.state === 'held') return true;
    // Both were told of the same settlement: the one with the smaller id keeps it.
    return (
      charged &&
      known.state === 'charged' &&
      known.charged > 0 &&
      ledgerId < this.id &&
      !this.#references.has(`adjust:${elsewhere(referenceId)}`)
    );
  }

  /**
   * Gives back what this ledger holds, or has charged as well, for a reference that another one has settled. Call it
   * once that one's commitment holds what it charged. Again: nothing happens.
   * @throws the log's errors: then it is as it was
   */
  async yieldTo(settled: SettledElsewhere): Promise<{ applied: boolean }> {
    this.#assertOpen();
    const { referenceId, campaignId } = settled;
    if (!this.#references.has(referenceId)) return { applied: false };
    const reference = await this.#durableReference(referenceId);
    if (!this.concerns(settled)) return { applied: false };
    if (reference.state !== 'charged') return this.release(referenceId);
    return this.adjust({
      campaignId,
      referenceId: elsewhere(referenceId),
      amountMicros: -reference.charged,
      nowMs: this.#clock.nowMs(),
    });
  }

  /**
   * Holds money. The check and the hold happen before the first await; the promise settles when the hold is
   * durable. The same reference again answers like the first time.
   * @throws WAGGLE_LEDGER_CONFLICT for a reference used otherwise before, WAGGLE_LEDGER_AMOUNT, and the log's
   *   errors: then nothing is held
   */
  async reserve(request: ReserveRequest): Promise<ReserveResult> {
    this.#assertOpen();
    const { campaignId, referenceId, amountMicros, decisionId, nowMs, tenantId } = request;
    checkAmount(amountMicros, 'amountMicros');
    const known = this.#references.get(referenceId);
    if (known !== undefined) {
      if (
        known.campaign !== campaignId ||
        known.amount !== amountMicros ||
        known.state !== 'held'
      ) {
        throw ledgerError(
          'WAGGLE_LEDGER_CONFLICT',
          `reference ${referenceId} is ${known.state} already`,
          {
            details: {
              referenceId,
              campaignId: known.campaign,
              amountMicros: known.amount,
              state: known.state,
            },
          },
        );
      }
      await known.durable;
      return { ok: true };
    }
    const campaign = this.#campaigns.get(campaignId);
    if (campaign === undefined)
      return { ok: false, reason: 'unknown_campaign', availableMicros: 0 };
    const day = Math.floor(nowMs / DAY_MS);
    const free = available(campaign, day);
    if (amountMicros > free) {
      const total = uncommitted(campaign);
      return {
        ok: false,
        reason: amountMicros > total ? 'budget' : 'daily_budget',
        availableMicros: free,
      };
    }
    const reference = this.#newReference({
      id: referenceId,
      campaign: campaignId,
      amount: amountMicros,
      decision: decisionId,
      atMs: nowMs,
      since: this.#decisionSequence?.() ?? -1,
      tenant: tenantId,
    });
    await this.#holdDurably(campaign, reference);
    return { ok: true };
  }

  /**
   * Holds money that somebody has committed already, beyond the budget too: then nothing is available. A reference that
   * is known, whatever its amount, stays as it is.
   * @throws WAGGLE_LEDGER_AMOUNT, and the log's errors: then nothing is held
   */
  async commit(report: Report): Promise<{ applied: boolean }> {
    this.#assertOpen();
    const { campaignId, referenceId, amountMicros, decisionId, nowMs, tenantId } = report;
    checkAmount(amountMicros, 'amountMicros');
    const known = this.#references.get(referenceId);
    if (known !== undefined) {
      await known.durable;
      return { applied: false };
    }
    if (this.#mayBeForgotten(nowMs)) return { applied: false };
    const campaign = this.#campaign(campaignId);
    const reference = this.#newReference({
      id: referenceId,
      campaign: campaignId,
      // Sums stay exact.
      amount: Math.min(amountMicros, Number.MAX_SAFE_INTEGER - campaign.held - campaign.spent),
      decision: decisionId,
      atMs: nowMs,
      tenant: tenantId,
    });
    await this.#holdDurably(campaign, reference);
    return { applied: true };
  }

  /**
   * Gives back what a reference holds. One that is not known yet holds nothing later either: reports come in any order.
   * @throws the log's errors: then it is still held
   */
  async cancel(report: Omit<Report, 'amountMicros'>): Promise<{ applied: boolean }> {
    this.#assertOpen();
    const { campaignId, referenceId, decisionId, nowMs, tenantId } = report;
    if (this.#references.has(referenceId)) {
      const { applied } = await this.release(referenceId);
      return { applied };
    }
    if (this.#mayBeForgotten(nowMs)) return { applied: false };
    const reference = this.#newReference({
      id: referenceId,
      campaign: campaignId,
      decision: decisionId,
      state: 'released',
      atMs: nowMs,
      tenant: tenantId,
    });
    this.#references.set(referenceId, reference);
    await this.#write(
      {
        t: 'release',
        c: campaignId,
        r: referenceId,
        a: 0,
        d: decisionId,
        at: nowMs,
        ...tenantOf(reference),
      },
      reference,
      () => {
        this.#snapshot?.keepReference(reference);
        this.#references.delete(referenceId);
      },
    );
    return { applied: true };
  }

  /**
   * Gives a hold back. Again, or after a charge: nothing happens.
   * @throws WAGGLE_LEDGER_UNKNOWN_REFERENCE, and the log's errors: then it is still held
   */
  async release(referenceId: string): Promise<Settlement> {
    this.#assertOpen();
    const reference = await this.#durableReference(referenceId);
    if (reference.state !== 'held') return settlement(reference, false, 0);
    const campaign = this.#campaign(reference.campaign);
    const nowMs = this.#clock.nowMs();
    this.#unhold(campaign, reference);
    reference.state = 'released';
    reference.atMs = Math.max(reference.atMs, nowMs);
    this.#changed(reference.campaign);
    await this.#write(
      {
        t: 'release',
        c: reference.campaign,
        r: referenceId,
        a: reference.amount,
        d: reference.decision,
        at: nowMs,
        ...tenantOf(reference),
      },
      reference,
      () => {
        this.#hold(campaign, reference);
        reference.state = 'held';
      },
    );
    return settlement(reference, true, 0);
  }

  /**
   * Turns a hold into spending; what is not charged goes back to the campaign. More than was held is charged
   * only as far as the budgets allow. Again: nothing happens.
   * @throws WAGGLE_LEDGER_UNKNOWN_REFERENCE, WAGGLE_LEDGER_CONFLICT after a release, WAGGLE_LEDGER_AMOUNT, and
   *   the log's errors: then it is still held
   */
  async charge(referenceId: string, amountMicros: number): Promise<Settlement> {
    this.#assertOpen();
    checkAmount(amountMicros, 'amountMicros');
    const reference = await this.#durableReference(referenceId);
    if (reference.state === 'charged') return settlement(reference, false, 0);
    if (reference.state === 'released') {
      throw ledgerError('WAGGLE_LEDGER_CONFLICT', `reference ${referenceId} was released`, {
        details: { referenceId },
      });
    }
    const campaign = this.#campaign(reference.campaign);
    const extra = Math.max(0, amountMicros - reference.amount);
    const granted = Math.min(extra, available(campaign, reference.day));
    const charged = amountMicros - extra + granted;
    const nowMs = this.#clock.nowMs();
    this.#unhold(campaign, reference);
    reference.state = 'charged';
    reference.charged = charged;
    reference.atMs = Math.max(reference.atMs, nowMs);
    this.#spend(campaign, reference, charged);
    this.#changed(reference.campaign);
    await this.#write(
      {
        t: 'charge',
        c: reference.campaign,
        r: referenceId,
        a: charged,
        d: reference.decision,
        at: nowMs,
        ...tenantOf(reference),
      },
      reference,
      () => {
        this.#spend(campaign, reference, -charged);
        reference.state = 'held';
        reference.charged = 0;
        this.#hold(campaign, reference);
      },
    );
    return settlement(reference, true, amountMicros - charged);
  }

  /**
   * Charges what a reference came to in the end, like `charge`. One that nobody told of before was committed all the
   * same; one that was given back stays so.
   * @throws WAGGLE_LEDGER_AMOUNT, and the log's errors: then it is still held
   */
  async settle(report: Report): Promise<Settlement> {
    this.#assertOpen();
    checkAmount(report.amountMicros, 'amountMicros');
    const { referenceId } = report;
    if (!this.#references.has(referenceId) && !(await this.commit(report)).applied) {
      return { applied: false, releasedMicros: 0, chargedMicros: 0, refusedMicros: 0 };
    }
    const reference = await this.#durableReference(referenceId);
    if (reference.state === 'released') return settlement(reference, false, 0);
    return this.charge(referenceId, report.amountMicros);
  }

  /**
   * Corrects a campaign's spending by hand: positive spends more, negative gives back. Idempotent by reference.
   * @throws WAGGLE_LEDGER_AMOUNT when it would pass the budget or give back more than was spent
   */
  async adjust(request: {
    campaignId: string;
    referenceId: string;
    amountMicros: number;
    nowMs: number;
  }): Promise<{ applied: boolean }> {
    this.#assertOpen();
    const { campaignId, referenceId, amountMicros, nowMs } = request;
    checkAmount(Math.abs(amountMicros), 'amountMicros');
    const key = `adjust:${referenceId}`;
    const known = this.#references.get(key);
    if (known !== undefined) {
      if (known.campaign !== campaignId || known.charged !== amountMicros) {
        throw ledgerError(
          'WAGGLE_LEDGER_CONFLICT',
          `adjustment ${referenceId} was made otherwise before`,
        );
      }
      await known.durable;
      return { applied: false };
    }
    const campaign = this.#campaigns.get(campaignId);
    if (campaign === undefined) {
      throw ledgerError(
        'WAGGLE_LEDGER_UNKNOWN_REFERENCE',
        `campaign ${campaignId} has no budget here`,
      );
    }
    const total = uncommitted(campaign);
    if (amountMicros > Math.max(0, total) || campaign.spent + amountMicros < 0) {
      throw ledgerError(
        'WAGGLE_LEDGER_AMOUNT',
        `an adjustment of ${amountMicros} micros is not possible`,
        {
          details: { availableMicros: total, spentMicros: campaign.spent },
        },
      );
    }
    const reference = this.#newReference({
      id: key,
      campaign: campaignId,
      state: 'charged',
      charged: amountMicros,
      atMs: nowMs,
    });
    this.#references.set(key, reference);
    this.#keepForSnapshot(campaign, reference);
    campaign.spent += amountMicros;
    this.#changed(campaignId);
    await this.#write(
      { t: 'adjust', c: campaignId, r: referenceId, a: amountMicros, d: '', at: nowMs },
      reference,
      () => {
        this.#keepForSnapshot(campaign, reference);
        campaign.spent -= amountMicros;
        this.#references.delete(key);
      },
    );
    return { applied: true };
  }

  /**
   * Gives back what was held for decisions that were never made: the process ended between a hold and its decision's
   * record, so nobody was answered. A hold counts as such only when the log of decisions still has everything that was
   * written after it, and has no such decision; where the log has been cut since, the money stays held. Call it once,
   * before requests are taken.
   * @param readDecisions called when there is anything to ask; ids of all decisions that the log holds
   * @throws the log's errors; what was not given back then is asked again at the next start
   */
  async releaseOrphans(
    decisions: { readonly firstSequence: number; readonly lastSequence: number },
    readDecisions: () => Promise<ReadonlySet<string>>,
  ): Promise<{ released: number; micros: number }> {
    const doubtful = [...this.#references].filter(
      ([, { state, since }]) =>
        state === 'held' &&
        since >= 0 &&
        decisions.firstSequence <= since + 1 &&
        // A log that ends before is another one.
        decisions.lastSequence >= since,
    );
    let released = 0;
    let micros = 0;
    if (doubtful.length === 0) return { released, micros };
    const made = await readDecisions();
    const orphans = doubtful.filter(([, { decision }]) => !made.has(decision));
    const settlements = await Promise.all(orphans.map(([id]) => this.release(id)));
    for (const { applied, releasedMicros } of settlements) {
      if (!applied) continue;
      released++;
      micros += releasedMicros;
    }
    if (released > 0) {
      this.#logger.warn(
        { holds: released, micros },
        'gave back money that was held for decisions which were never made',
      );
    }
    return { released, micros };
  }

  /** Begins sending entries to the store's `ledger_entries`. */
  start(store: Store): void {
    this.#forwarder?.start(store);
  }

  /** Resolves when all durable entries are in the store. */
  async idle(): Promise<void> {
    await this.#forwarder?.idle();
  }

  async stop(drainMs?: number): Promise<void> {
    await this.#forwarder?.stop(drainMs);
  }

  status(): ForwarderStatus {
    if (this.#forwarder !== undefined) return this.#forwarder.status();
    const { failure } = this.#wal.status();
    return {
      ok: failure === undefined,
      backlog: 0,
      lagMs: 0,
      ...(failure === undefined ? {} : { detail: failure.message }),
    };
  }

  /** Writes the state beside the log and lets go of the records that it replaces. */
  snapshot(): Promise<void> {
    this.#assertOpen();
    return this.#takeSnapshot();
  }

  /** Takes a last snapshot. The log stays open: its owner closes it. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#forwarder?.stop();
    await this.#wal.flush().catch(() => {});
    await this.#takeSnapshot().catch((err) => {
      this.#logger.warn({ err }, 'no snapshot of the ledger; the next start replays the log');
    });
  }

  #takeSnapshot(): Promise<void> {
    this.#snapshotting ??= this.#writeSnapshot().finally(() => {
      this.#snapshotting = undefined;
    });
    return this.#snapshotting;
  }

  async #writeSnapshot(): Promise<void> {
    // The state may run ahead of the log by operations that nobody has been promised yet. That is the same as if
    // their records had become durable just before a crash: asking again finds them done, and replaying their
    // records on top changes nothing. While the log refuses records, flush() throws and no snapshot is taken.
    await this.#wal.flush();
    const sequence = this.#wal.durableSequence;
    // A report may lie a day ahead of the clock.
    const oldest = this.#clock.nowMs() - this.#keepSettledMs - DAY_MS;
    this.#sinceSnapshot = 0;
    const snapshot = new LedgerSnapshot(++this.#snapshots);
    this.#snapshot = snapshot;
    try {
      await snapshot.copy(sequence, this.#campaigns, this.#references, ({ id, state, atMs }) => {
        const old = state !== 'held' && atMs < oldest;
        if (old) this.#references.delete(id);
        return old;
      });
    } finally {
      this.#snapshot = undefined;
    }
    await this.#wal.assertHeld();
    await snapshot.write(this.#wal.dir);
    this.#snapshotSequence = sequence;
    const forwarded = this.#forwarder?.cursor ?? sequence;
    await this.#wal.truncateBefore(Math.min(sequence, forwarded) + 1);
  }

  /** Whatever changes a campaign's money and a reference calls this before. */
  #keepForSnapshot(campaign: Campaign, reference: Reference): void {
    this.#snapshot?.keepCampaign(reference.campaign, campaign);
    this.#snapshot?.keepReference(reference);
  }

  async #recover(): Promise<void> {
    this.#snapshotSequence = await readSnapshot(this.#wal.dir, this.#campaigns, this.#references);
    let replayed = 0;
    for await (const { payload } of this.#wal.read(this.#snapshotSequence + 1)) {
      this.#replay(readRecord(payload));
      replayed++;
    }
    this.#sinceSnapshot = replayed;
    if (replayed > 0) this.#logger.info({ replayed }, 'the budget ledger replayed its log');
  }

  /** Applies a record that was promised, without checks; applying it twice changes nothing. */
  #replay(record: LedgerRecord): void {
    if (record.t === 'budgets') {
      for (const figures of record.rows) this.#setFigures(figures);
      return;
    }
    const campaign = this.#campaign(record.c);
    const reference = this.#references.get(record.t === 'adjust' ? `adjust:${record.r}` : record.r);
    switch (record.t) {
      case 'reserve': {
        if (reference !== undefined) return;
        const fresh = this.#newReference({
          id: record.r,
          campaign: record.c,
          amount: record.a,
          decision: record.d,
          atMs: record.at,
          since: record.s ?? -1,
          tenant: record.n,
        });
        this.#references.set(record.r, fresh);
        this.#hold(campaign, fresh);
        return;
      }
      case 'release':
        if (reference === undefined) {
          const fresh = this.#newReference({
            id: record.r,
            campaign: record.c,
            decision: record.d,
            state: 'released',
            atMs: record.at,
            tenant: record.n,
          });
          this.#references.set(record.r, fresh);
          return;
        }
        if (reference.state !== 'held') return;
        this.#unhold(campaign, reference);
        reference.state = 'released';
        reference.atMs = Math.max(reference.atMs, record.at);
        return;
      case 'charge':
        if (reference?.state !== 'held') return;
        this.#unhold(campaign, reference);
        reference.state = 'charged';
        reference.charged = record.a;
        reference.atMs = Math.max(reference.atMs, record.at);
        this.#spend(campaign, reference, record.a);
        return;
      case 'adjust': {
        if (reference !== undefined) return;
        campaign.spent += record.a;
        const fresh = this.#newReference({
          id: `adjust:${record.r}`,
          campaign: record.c,
          state: 'charged',
          charged: record.a,
          atMs: record.at,
        });
        this.#references.set(fresh.id, fresh);
        return;
      }
      default:
        // Passed over, its money would be gone with the next snapshot.
        throw newerLedger(this.#wal.dir, `a record "${(record as { t: string }).t}"`);
    }
  }

  /** One that holds nothing, of the ledger's tenant, on the UTC day of `atMs`: unless told otherwise. */
  #newReference(
    facts: Pick<Reference, 'id' | 'campaign' | 'atMs'> & Partial<Reference>,
  ): Reference {
    return {
      amount: 0,
      day: Math.floor(facts.atMs / DAY_MS),
      decision: '',
      state: 'held',
      charged: 0,
      since: -1,
      tenant: undefined,
      durable: undefined,
      capture: this.#snapshots,
      ...facts,
    };
  }

  /** Holds at once, resolves when that is durable. */
  async #holdDurably(campaign: Campaign, reference: Reference): Promise<void> {
    this.#hold(campaign, reference);
    this.#references.set(reference.id, reference);
    this.#changed(reference.campaign);
    const { id, since } = reference;
    await this.#write(
      {
        t: 'reserve',
        c: reference.campaign,
        r: id,
        a: reference.amount,
        d: reference.decision,
        at: reference.atMs,
        ...(since < 0 ? {} : { s: since }),
        ...tenantOf(reference),
      },
      reference,
      () => {
        this.#unhold(campaign, reference);
        this.#references.delete(id);
      },
    );
  }

  /** Whether something of that time may have been settled and forgotten since: it does not count again. */
  #mayBeForgotten(atMs: number): boolean {
    return atMs < this.#clock.nowMs() - this.#keepSettledMs;
  }

  /** Makes a change durable; undoes it in memory when the log refuses it. */
  async #write(record: Movement, reference: Reference, undo: () => void): Promise<void> {
    const durable = this.#wal.append(Buffer.from(writeRecord(record)));
    reference.durable = durable;
    // Whoever asks for the same reference meanwhile shares this outcome.
    durable.catch(() => {});
    try {
      await durable;
    } catch (err) {
      undo();
      this.#changed(reference.campaign);
      throw err instanceof WaggleError
        ? err
        : ledgerError('WAGGLE_LEDGER_CLOSED', 'the ledger’s log refused a record', { cause: err });
    } finally {
      if (reference.durable === durable) reference.durable = undefined;
    }
    this.#written();
  }

  #writeBudgets(rows: BudgetFigures[]): void {
    if (this.#closed) return;
    try {
      this.#wal.appendLater(writeRecord({ t: 'budgets', rows }));
      this.#written();
    } catch (err) {
      this.#logger.warn(
        { err, campaigns: rows.length },
        'budgets are not in the ledger’s log; free some space, or an older release could bring old ones back after a restart',
      );
    }
  }

  /** The log has one more record. */
  #written(): void {
    this.#forwarder?.notify();
    if (++this.#sinceSnapshot >= this.#snapshotEvery && !this.#closed) {
      this.#sinceSnapshot = 0;
      this.#takeSnapshot().catch((err) => {
        this.#logger.warn({ err }, 'no snapshot of the ledger; its log grows until the next one');
      });
    }
  }

  #isOwn(ledgerId: string): boolean {
    const { id, since } = this.#identity;
    return ledgerId === '' ? since > 0 : ledgerId === id;
  }

  /** @returns whether anything was changed by them */
  #setFigures([id, budget, daily, found, asOf, counted = []]: BudgetFigures): boolean {
    const known = this.#campaigns.get(id);
    let outside = found;
    let shares = counted;
    if (known !== undefined) {
      if (asOf < known.asOf) return false;
      if (asOf === known.asOf && found < known.outside) ({ outside, shares } = known);
      if (
        asOf === known.asOf &&
        budget === known.budget &&
        daily === known.daily &&
        outside === known.outside &&
        isDeepStrictEqual(shares, known.shares)
      )
        return false;
    }
    const campaign = this.#campaign(id);
    this.#snapshot?.keepCampaign(id, campaign);
    Object.assign(campaign, { budget, daily, outside, asOf, shares });
    this.#countPeers(id, campaign);
    this.#changed(id);
    return true;
  }

  /** Counts what other ledgers told instead of what the release knew of them. @returns whether that changed anything */
  #countPeers(id: string, campaign: Campaign): boolean {
    const told = this.#peers.get(id) ?? [];
    let beyond = 0;
    let peersDay = 0;
    let peersDayMicros = 0;
    for (const { committedMicros, day, dayMicros } of told) {
      beyond += committedMicros;
      if (day > peersDay) [peersDay, peersDayMicros] = [day, 0];
      if (day === peersDay) peersDayMicros += dayMicros;
    }
    for (const [ledgerId, micros] of campaign.shares) {
      if (told.some((peer) => peer.ledgerId === ledgerId)) beyond -= micros;
    }
    const same =
      beyond === campaign.beyond &&
      peersDay === campaign.peersDay &&
      peersDayMicros === campaign.peersDayMicros;
    if (!same) Object.assign(campaign, { beyond, peersDay, peersDayMicros });
    return !same;
  }

  #hold(campaign: Campaign, reference: Reference): void {
    this.#keepForSnapshot(campaign, reference);
    campaign.held += reference.amount;
    holdOn(campaign, reference.day, reference.amount);
  }

  #unhold(campaign: Campaign, reference: Reference): void {
    this.#keepForSnapshot(campaign, reference);
    campaign.held -= reference.amount;
    settleOn(campaign, reference.day, -reference.amount);
  }

  #spend(campaign: Campaign, reference: Reference, amount: number): void {
    this.#keepForSnapshot(campaign, reference);
    campaign.spent += amount;
    settleOn(campaign, reference.day, amount);
  }

  #campaign(id: string): Campaign {
    let campaign = this.#campaigns.get(id);
    if (campaign === undefined) {
      campaign = newCampaign(this.#snapshots);
      this.#campaigns.set(id, campaign);
    }
    return campaign;
  }

  /** A reference whose latest change is durable: nothing builds on what may be undone. */
  async #durableReference(id: string): Promise<Reference> {
    for (;;) {
      const reference = this.#reference(id);
      if (reference.durable === undefined) return reference;
      await reference.durable.catch(() => {});
    }
  }

  #reference(id: string): Reference {
    const reference = this.#references.get(id);
    if (reference === undefined) {
      throw ledgerError('WAGGLE_LEDGER_UNKNOWN_REFERENCE', `nothing was reserved for ${id}`, {
        details: { referenceId: id },
      });
    }
    return reference;
  }

  #changed(campaignId: string): void {
    this.#version++;
    for (const listener of this.#listeners) listener(campaignId);
  }

  #assertOpen(): void {
    if (this.#closed) throw ledgerError('WAGGLE_LEDGER_CLOSED', 'the budget ledger is closed');
  }
}

/** Name of the adjustment that takes back what another ledger has charged, too. */
function elsewhere(referenceId: string): string {
  return `elsewhere:${referenceId}`;
}

function settlement(reference: Reference, applied: boolean, refusedMicros: number): Settlement {
  return {
    applied,
    releasedMicros: Math.max(0, reference.amount - reference.charged),
    chargedMicros: reference.charged,
    refusedMicros,
  };
}

function checkAmount(value: number, name: string): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw ledgerError(
      'WAGGLE_LEDGER_AMOUNT',
      `${name} must be a whole number of micros, got ${value}`,
      {
        details: { name, value: String(value) },
      },
    );
  }
}

function tenantOf({ tenant }: Reference): { n?: string } {
  return tenant === undefined ? {} : { n: tenant };
}
