import type { Store } from '@waggle/store';
import { pipelineError } from './errors.js';

export interface DataRange {
  readonly fromMs: number;
  /** One millisecond after the last event: "nothing later than this" includes it. */
  readonly asOfMs: number;
}

/** First and last event of the tenant. @throws WAGGLE_NO_DATA when there is none */
export async function dataRange(store: Store, tenantId: string): Promise<DataRange> {
  const rows = await store.query<{ first: number; last: number; total: number }>(
    `SELECT toFloat64(toUnixTimestamp64Milli(min(first))) AS first, toFloat64(toUnixTimestamp64Milli(max(last))) AS last, sum(n) AS total FROM (
       SELECT min(ts) AS first, max(ts) AS last, count() AS n FROM sends WHERE tenant_id = {tenant:String}
       UNION ALL SELECT min(ts), max(ts), count() FROM placements WHERE tenant_id = {tenant:String}
       UNION ALL SELECT min(ts), max(ts), count() FROM offers WHERE tenant_id = {tenant:String}
       UNION ALL SELECT min(ts), max(ts), count() FROM clicks WHERE tenant_id = {tenant:String}
       UNION ALL SELECT min(updated_at), max(updated_at), count() FROM campaigns WHERE tenant_id = {tenant:String}
     ) WHERE n > 0`,
    { params: { tenant: tenantId } },
  );
  const row = rows[0];
  if (row === undefined || Number(row.total) === 0) {
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
