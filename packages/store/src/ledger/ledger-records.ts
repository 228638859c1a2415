import { createHash } from 'node:crypto';
import type { LedgerRow } from '@waggle/core/contract';

/** A budget ledger's entries in the store are named `wl_<ledger id>_<type>_<reference>`, old ones without the id. */
export const LEDGER_EVENT_PREFIX = 'wl_';
/** In SQL: an entry of `ledger_entries` is of a budget ledger of Waggle's, not of the platform. */
export const IS_LEDGER_ENTRY = `startsWith(event_id, '${LEDGER_EVENT_PREFIX}')`;
/** Tells the ledger id, as its group, from the name of an entry. */
export const LEDGER_ID_PATTERN = `^${LEDGER_EVENT_PREFIX}([0-9a-f]{12})_`;

/** Letters are short because a log holds millions: campaign, reference, amount in micros, decision, UTC ms, `since` of a hold, tenant. */
export type Movement =
  | { t: 'reserve'; c: string; r: string; a: number; d: string; at: number; s?: number; n?: string }
  | { t: 'release'; c: string; r: string; a: number; d: string; at: number; n?: string }
  | { t: 'charge'; c: string; r: string; a: number; d: string; at: number; n?: string }
  | { t: 'adjust'; c: string; r: string; a: number; d: string; at: number; n?: undefined };

export type Shares = [ledgerId: string, micros: number][];

export type BudgetFigures = [
  id: string,
  budget: number,
  daily: number,
  outside: number,
  asOf: number,
  /** What of `outside` was counted for other ledgers. */
  shares?: Shares,
];

/** What the ledger's log holds. */
export type LedgerRecord = Movement | { t: 'budgets'; rows: BudgetFigures[] };

export function writeRecord(record: LedgerRecord): string {
  return JSON.stringify(record);
}

export function readRecord(payload: Uint8Array): LedgerRecord {
  return JSON.parse(
    Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8'),
  ) as LedgerRecord;
}

/** The entry of `ledger_entries` that a movement is. @param ledgerId '' = of the time before ledgers had ids */
export function entryOf(record: Movement, tenantId: string, ledgerId: string): LedgerRow {
  return {
    tenant_id: record.n ?? tenantId,
    event_id: eventId(record.t, record.r, ledgerId),
    type: `ledger.${record.t}`,
    ts: new Date(record.at).toISOString(),
    campaign_id: record.c,
    reference_id: record.r,
    amount_micros: record.a,
    decision_id: record.d,
  };
}

/** A reference has one entry of each type, so its id follows from both: sending it twice is once. */
function eventId(type: string, reference: string, ledgerId: string): string {
  const head = `${LEDGER_EVENT_PREFIX}${ledgerId === '' ? '' : `${ledgerId}_`}${type}_`;
  const id = `${head}${reference}`;
  return id.length <= 64
    ? id
    : `${head}${createHash('sha256').update(reference).digest('hex').slice(0, 40)}`;
}
