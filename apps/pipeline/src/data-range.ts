import { parseTimestampMs } from '@waggle/core';
import type { Store } from '@waggle/store';
import { IS_LEDGER_ENTRY } from '@waggle/store/ledger';
import { pipelineError } from './errors.js';

export interface DataRange {
  readonly fromMs: number;
  /** One millisecond after the last event: "nothing later than this" includes it. */
  readonly asOfMs: number;
}

/** Events of which something is learnt: what is kept of campaigns and publications may be much older, or edited long after. */
const EVENTS = ['sends', 'placements', 'offers', 'clicks'] as const;
/** Opens are kept by the hour, from whose beginning they count, and conversions come of clicks: neither comes first. */
const LATER_EVENTS = ['opens', 'conversions'] as const;

const MAX_NAMED_TENANTS = 5;

/** First and last event of the tenant. @throws WAGGLE_NO_DATA when there is none */
export async function dataRange(store: Store, tenantId: string): Promise<DataRange> {
  const of = (table: string, first: string) =>
    `SELECT ${first} AS first, max(ts) AS last FROM ${table} WHERE tenant_id = {tenant:String} HAVING count() > 0`;
  const tables = [
    ...EVENTS.map((table) => of(table, 'toNullable(min(ts))')),
    ...LATER_EVENTS.map((table) => of(table, 'NULL')),
  ];
  const rows = await store.query<{ first: number | null; last: number | null }>(
    `SELECT toFloat64(toUnixTimestamp64Milli(min(first))) AS first, toFloat64(toUnixTimestamp64Milli(max(last))) AS last
     FROM (${tables.join(' UNION ALL ')})`,
    { params: { tenant: tenantId } },
  );
  const row = rows[0];
  if (row?.first == null || row.last == null) {
    const others = await tenantsOf(store);
    throw pipelineError('WAGGLE_NO_DATA', `the store holds no events of tenant ${tenantId}`, {
      ...(others.length > 0 && {
        remedy: `It holds events of ${others.join(', ')}: set WAGGLE_TENANT to the tenant_id of your rows.`,
        details: { tenants: others },
      }),
    });
  }
  return { fromMs: Number(row.first), asOfMs: Number(row.last) + 1 };
}

/** Some tenants that have events. */
async function tenantsOf(store: Store): Promise<string[]> {
  const tables = EVENTS.map((table) => `SELECT DISTINCT tenant_id AS id FROM ${table}`);
  const rows = await store.query<{ id: string }>(
    `SELECT DISTINCT id FROM (${tables.join(' UNION ALL ')}) ORDER BY id LIMIT ${MAX_NAMED_TENANTS}`,
  );
  return rows.map((row) => row.id);
}

/** Versions of entities, and what says how much of a budget is gone. */
const KNOWN: Readonly<Record<string, string>> = {
  publications: 'updated_at',
  campaigns: 'updated_at',
  creatives: 'updated_at',
  advertisers: 'updated_at',
  settlements: 'ts',
  ledger_entries: 'ts',
};

/**
 * When the network's entities and money changed last, if after its events: a campaign that was paused since is paused. What is dated
 * ahead of `nowMs` is not so yet.
 */
export async function knownAsOf(
  store: Store,
  tenantId: string,
  { asOfMs, nowMs }: { readonly asOfMs: number; readonly nowMs: number },
): Promise<number> {
  const ms = (time: string) => `toUnixTimestamp64Milli(${time})`;
  const tables = Object.entries(KNOWN).map(([table, time]) => {
    // Entries of live ledgers count whenever they were made.
    const own = table === 'ledger_entries' ? `AND NOT ${IS_LEDGER_ENTRY}` : '';
    return `SELECT max(${ms(time)}) AS last FROM ${table} WHERE tenant_id = {tenant:String} AND ${ms(time)} <= {now:Int64} ${own}`;
  });
  const rows = await store.query<{ last: number }>(
    `SELECT toFloat64(max(last)) AS last FROM (${tables.join(' UNION ALL ')})`,
    { params: { tenant: tenantId, now: nowMs } },
  );
  return Math.max(asOfMs, Number(rows[0]?.last ?? 0));
}

/** The `--as-of` option, or the end of the data. @throws WAGGLE_USAGE, WAGGLE_NO_DATA when it is before all data */
export async function asOfOption(
  store: Store,
  tenantId: string,
  option: unknown,
): Promise<DataRange> {
  const range = await dataRange(store, tenantId);
  if (option === undefined) return range;
  const asOfMs = parseTimestampMs(String(option));
  if (asOfMs === undefined) {
    throw pipelineError(
      'WAGGLE_USAGE',
      `--as-of must be an RFC 3339 time with its offset, such as 2026-03-01T00:00:00Z, got "${String(option)}"`,
    );
  }
  if (asOfMs <= range.fromMs) {
    const [asked, first] = [asOfMs, range.fromMs].map((ms) => new Date(ms).toISOString());
    throw pipelineError(
      'WAGGLE_NO_DATA',
      `nothing happened before ${asked}: data begin at ${first}`,
      {
        remedy: 'Name a time after the first event with --as-of.',
      },
    );
  }
  return { fromMs: range.fromMs, asOfMs };
}
