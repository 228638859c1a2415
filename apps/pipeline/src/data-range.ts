import type { Store } from '@waggle/store';
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
    throw pipelineError('WAGGLE_NO_DATA', `the store holds no events of tenant ${tenantId}`);
  }
  return { fromMs: Number(row.first), asOfMs: Number(row.last) + 1 };
}

/** The `--as-of` option, or the end of the data. @throws WAGGLE_USAGE, WAGGLE_NO_DATA when it is before all data */
export async function asOfOption(
  store: Store,
  tenantId: string,
  option: unknown,
): Promise<DataRange> {
  const range = await dataRange(store, tenantId);
  if (option === undefined) return range;
  const asOfMs = Date.parse(String(option));
  if (Number.isNaN(asOfMs)) {
    throw pipelineError(
      'WAGGLE_USAGE',
      `--as-of must be an RFC 3339 time, got "${String(option)}"`,
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
