import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { WaggleError } from '@waggle/core';
import { ledgerError } from '../errors.js';
import { readIfPresent, writeDurably } from './durable-file.js';
import { type Campaign, newCampaign, type Reference } from './ledger-accounts.js';
import type { Shares } from './ledger-records.js';

type SnapshotCampaign = [
  id: string,
  budget: number,
  daily: number,
  outside: number,
  held: number,
  spent: number,
  day: number,
  dayUsed: number,
  asOf?: number,
  /** Days before that one and what was used on each, in turns. */
  earlier?: number[],
  shares?: Shares,
];
type SnapshotReference = [
  id: string,
  campaign: string,
  amount: number,
  day: number,
  decision: string,
  state: Reference['state'],
  charged: number,
  atMs: number,
  since?: number,
  tenant?: string | null,
];
/** First line after the checksum; the references follow in lines of many. */
interface SnapshotHead {
  version: number;
  sequence: number;
  campaigns: SnapshotCampaign[];
}

/** Entries that are copied and made text of between two turns of the event loop. */
const SLICE = 500;
const FILE = 'snapshot.json';
/** Grows whenever an older build would lose something by reading the snapshot and writing its own over it. */
const VERSION = 1;

/**
 * Copies a ledger's state while it goes on changing. Totals and references must agree, and copying them takes longer
 * than a request may wait: so this goes in slices, and whoever changes a campaign or a reference has it kept before, as
 * it was when the copy began. What came since is marked with this copy's number and left out.
 */
export class LedgerSnapshot {
  readonly #number: number;
  /** Copied and not yet written out. */
  readonly #campaigns: SnapshotCampaign[] = [];
  readonly #references: SnapshotReference[] = [];
  readonly #hash = createHash('sha256');
  /** Bytes lie outside the heap, where the collector does not carry them about. */
  readonly #parts: Buffer[] = [];

  /** @param number rises from copy to copy */
  constructor(number: number) {
    this.#number = number;
  }

  /** Copies a campaign, unless it has it. */
  keepCampaign(id: string, c: Campaign): void {
    if (c.capture === this.#number) return;
    c.capture = this.#number;
    const days = [...c.days].flat();
    const [day = 0, dayUsed = 0] = days.splice(-2);
    const { budget, daily, outside, held, spent, asOf, shares } = c;
    this.#campaigns.push([
      id,
      budget,
      daily,
      outside,
      held,
      spent,
      day,
      dayUsed,
      asOf,
      days,
      shares,
    ]);
  }

  /** Copies a reference, unless it has it. */
  keepReference(r: Reference): void {
    if (r.capture === this.#number) return;
    r.capture = this.#number;
    const { id, campaign, amount, day, decision, state, charged, atMs, since, tenant = null } = r;
    this.#references.push([
      id,
      campaign,
      amount,
      day,
      decision,
      state,
      charged,
      atMs,
      since,
      tenant,
    ]);
  }

  /**
   * Copies everything.
   * @param sequence of the log's last record that the state has
   * @param forget whether a reference need not be kept; it may remove it
   */
  async copy(
    sequence: number,
    campaigns: ReadonlyMap<string, Campaign>,
    references: ReadonlyMap<string, Reference>,
    forget: (reference: Reference) => boolean,
  ): Promise<void> {
    this.#add(`{"version":${VERSION},"sequence":${sequence},"campaigns":[`);
    let comma = '';
    const addCampaigns = async () => {
      if (this.#campaigns.length === 0) return;
      const text = this.#campaigns.splice(0).map((entry) => JSON.stringify(entry));
      this.#add(`${comma}${text.join(',')}`);
      comma = ',';
      await nextTurn();
    };
    for (const [id, campaign] of campaigns) {
      this.keepCampaign(id, campaign);
      if (this.#campaigns.length >= SLICE) await addCampaigns();
    }
    await addCampaigns();
    this.#add(']}');
    const addReferences = async () => {
      while (this.#references.length > 0) {
        this.#add(`\n${JSON.stringify(this.#references.splice(0, SLICE))}`);
        await nextTurn();
      }
    };
    let seen = 0;
    for (const reference of references.values()) {
      if (!forget(reference)) this.keepReference(reference);
      if (this.#references.length >= SLICE) await addReferences();
      else if (++seen % SLICE === 0) await nextTurn();
    }
    await addReferences();
  }

  /** Durable when it resolves; takes the place of the one before. */
  write(dir: string): Promise<void> {
    const first = Buffer.from(`${this.#hash.digest('hex')}\n`);
    return writeDurably(join(dir, FILE), [first, ...this.#parts]);
  }

  #add(text: string): void {
    const bytes = Buffer.from(text);
    this.#hash.update(bytes);
    this.#parts.push(bytes);
  }
}

/**
 * Reads the snapshot of a directory into maps.
 * @returns the sequence of the log's last record that it has; 0 where there is none
 * @throws WAGGLE_LEDGER_CORRUPT, WAGGLE_LEDGER_NEWER
 */
export async function readSnapshot(
  dir: string,
  campaigns: Map<string, Campaign>,
  references: Map<string, Reference>,
): Promise<number> {
  const path = join(dir, FILE);
  const text = await readIfPresent(path);
  if (text === undefined) return 0;
  const split = text.indexOf('\n');
  const body = text.slice(split + 1);
  if (createHash('sha256').update(body).digest('hex') !== text.slice(0, split)) {
    throw ledgerError('WAGGLE_LEDGER_CORRUPT', `${path} does not match its checksum`, {
      details: { path },
    });
  }
  const [head, ...slices] = body.split('\n');
  const { version, sequence, campaigns: entries } = JSON.parse(head!) as SnapshotHead;
  if (version !== VERSION) {
    throw newerLedger(path, `version ${version}, this one reads ${VERSION}`);
  }
  for (const entry of entries) {
    const [id, budget, daily, outside, held, spent, day, dayUsed, asOf = 0] = entry;
    const [, , , , , , , , , earlier = [], shares = []] = entry;
    const days = new Map<number, number>();
    for (let i = 0; i < earlier.length; i += 2) days.set(earlier[i]!, earlier[i + 1]!);
    if (day > 0) days.set(day, dayUsed);
    const figures = { budget, daily, outside, asOf, shares, held, spent, days };
    campaigns.set(id, { ...newCampaign(0), ...figures });
  }
  for (const slice of slices) {
    for (const entry of JSON.parse(slice) as SnapshotReference[]) {
      const [id, campaign, amount, day, decision, state, charged, atMs, since = -1, tenant] = entry;
      references.set(id, {
        id,
        campaign,
        amount,
        day,
        decision,
        state,
        charged,
        atMs,
        since,
        tenant: tenant ?? undefined,
        durable: undefined,
        capture: 0,
      });
    }
  }
  return sequence;
}

export function newerLedger(path: string, found: string): WaggleError {
  return ledgerError('WAGGLE_LEDGER_NEWER', `${path} was written by a newer Waggle: ${found}`, {
    details: { path },
  });
}

/** Lets whatever waits run first. */
function nextTurn(): Promise<void> {
  return new Promise((wake) => setImmediate(wake));
}
