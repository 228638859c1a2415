import { type StringColumn, stringColumn, stringData } from '@waggle/core';
import { type FeatureStore, QUERY_SETTINGS, tableReader } from './feature-store.js';
import { inClickWindowSql, VERIFIED_CLICK_SQL } from './label.js';
import { numbers } from './query-columns.js';

/**
 * What a click says about who made it, beside the hidden link, which is what the others are judged by. `trapped_elsewhere`: share of
 * the subscriber's clicks in other issues that touched the hidden link; missing where there are none.
 */
export const CLICK_SIGNALS = [
  { name: 'log_ms_since_delivery', description: 'ln(1 + ms between delivery and click)' },
  { name: 'links_within_10s', description: 'links of the email followed within ten seconds' },
  { name: 'ua_is_proxy', description: '1 when the user agent is a proxy' },
  { name: 'ua_is_unknown', description: '1 when the user agent is unknown' },
  { name: 'device_is_unknown', description: '1 when the device is unknown' },
  { name: 'ads_in_issue', description: 'ads of the issue that the subscriber followed' },
  { name: 'clicks_in_issue', description: "the subscriber's clicks in the issue" },
  { name: 'log_clicks_elsewhere', description: "ln(1 + the subscriber's clicks in other issues)" },
  {
    name: 'trapped_elsewhere',
    description: "share of the subscriber's clicks in other issues that touched the hidden link",
  },
] as const;

/** Every click, whatever its verdict. */
export interface ClickRows {
  readonly nRows: number;
  /** float32 [nRows × CLICK_SIGNALS], row-major, NaN = missing. */
  readonly x: Float32Array;
  /** [nRows] 1 where the subscriber touched the hidden link in the issue. */
  readonly trapped: Float64Array;
  /** [nRows] 1 where the rule of `VERIFIED_CLICK_SQL` lets the click pass. */
  readonly verified: Float64Array;
  /** [nRows] 1 where a conversion followed. */
  readonly converted: Float64Array;
  /** [nRows] 1 within 72 h of sending. */
  readonly inWindow: Float64Array;
  readonly tsMs: Float64Array;
  /** [nRows] subscribers who clicked in the publication from the click's address range, and how many would by the other publications. */
  readonly addressSubscribers: Float64Array;
  readonly addressExpected: Float64Array;
  readonly clickIds: StringColumn;
  readonly placement: StringColumn;
  readonly publication: StringColumn;
  readonly campaign: StringColumn;
  readonly subscriber: StringColumn;
}

/**
 * Signals of all clicks known at `asOfMs`, in time order. They serve to judge labels, not to decide: what a subscriber did later
 * is evidence about earlier clicks. One statement of window sums over the tenant's clicks.
 */
export async function buildClickRows(
  store: FeatureStore,
  o: { readonly tenantId: string; readonly asOfMs: number; readonly signal?: AbortSignal },
): Promise<ClickRows> {
  const read = tableReader({ untilMs: o.asOfMs });
  const table = await store.queryColumns(
    `
SELECT k.event_id AS event_id, k.placement_id AS placement_id, k.publication_id AS publication_id, k.campaign_id AS campaign_id,
  k.subscriber_key AS subscriber_key, toFloat64(k.ms) AS ts_ms, toFloat64(k.trapped) AS trapped, toFloat64(k.verified) AS verified,
  toFloat64(c.click_id != '') AS converted, toFloat64(s.sent_ms > 0 AND ${inClickWindowSql('k.ms', 's.sent_ms')}) AS in_window,
  log1p(k.delay_ms) AS log_ms_since_delivery, toFloat64(k.links_within_10s) AS links_within_10s,
  toFloat64(k.ua_class = 'proxy') AS ua_is_proxy, toFloat64(k.ua_class = 'unknown') AS ua_is_unknown,
  toFloat64(k.device = 'unknown') AS device_is_unknown,
  toFloat64(k.ads_here) AS ads_in_issue, toFloat64(k.clicks_here) AS clicks_in_issue,
  log1p(k.clicks_all - k.clicks_here) AS log_clicks_elsewhere,
  if(k.clicks_all > k.clicks_here, (k.trapped_all - k.trapped_here) / (k.clicks_all - k.clicks_here), nan) AS trapped_elsewhere,
  toFloat64(a.here) AS address_subscribers,
  (a.all_here - a.here) * (p.n / greatest(t.n - p.n, 1)) AS address_expected
FROM (
  SELECT *, count() OVER (PARTITION BY post_id, subscriber_key) AS clicks_here,
    uniqExact(placement_id) OVER (PARTITION BY post_id, subscriber_key) AS ads_here,
    sum(trapped) OVER (PARTITION BY post_id, subscriber_key) AS trapped_here,
    count() OVER (PARTITION BY subscriber_key) AS clicks_all,
    sum(trapped) OVER (PARTITION BY subscriber_key) AS trapped_all
  FROM (
    SELECT event_id, placement_id, post_id, publication_id, campaign_id, subscriber_key, toString(ip_prefix) AS ip_prefix,
      toString(ua_class) AS ua_class, toString(device) AS device, links_within_10s, toUnixTimestamp64Milli(ts) AS ms,
      toFloat64(ms_since_delivery) AS delay_ms, toUInt32(honeypot) AS trapped, ${VERIFIED_CLICK_SQL} AS verified
    FROM ${read.events('clicks')}
  )
) AS k
LEFT JOIN (SELECT placement_id, toUnixTimestamp64Milli(ts) AS sent_ms FROM ${read.events('placements', "type = 'placement.sent'")}) AS s ON s.placement_id = k.placement_id
LEFT JOIN (SELECT DISTINCT click_id FROM ${read.repeatable('conversions', "type = 'conversion'")}) AS c ON c.click_id = k.event_id
INNER JOIN (
  SELECT publication_id, ip_prefix, here, sum(here) OVER (PARTITION BY ip_prefix) AS all_here
  FROM (SELECT publication_id, toString(ip_prefix) AS ip_prefix, toFloat64(uniqExact(subscriber_key)) AS here FROM ${read.repeatable('clicks')} GROUP BY publication_id, ip_prefix)
) AS a ON a.publication_id = k.publication_id AND a.ip_prefix = k.ip_prefix
INNER JOIN (SELECT publication_id, toFloat64(uniqExact(subscriber_key)) AS n FROM ${read.repeatable('clicks')} GROUP BY publication_id) AS p ON p.publication_id = k.publication_id
CROSS JOIN (SELECT toFloat64(uniqExact((publication_id, subscriber_key))) AS n FROM ${read.repeatable('clicks')}) AS t
ORDER BY ts_ms, event_id`,
    {
      params: { tenant_id: o.tenantId },
      settings: { ...QUERY_SETTINGS, max_block_size: 65_536 },
      ...(o.signal === undefined ? {} : { signal: o.signal }),
    },
  );
  const { nRows } = table;
  const column = (name: string) => Float64Array.from(numbers(table, name));
  const strings = (name: string) => (nRows === 0 ? stringColumn([]) : stringData(table, name));
  const width = CLICK_SIGNALS.length;
  const x = new Float32Array(nRows * width);
  CLICK_SIGNALS.forEach(({ name }, f) => {
    const values = numbers(table, name);
    for (let i = 0; i < nRows; i++) x[i * width + f] = values[i]!;
  });
  return {
    nRows,
    x,
    trapped: column('trapped'),
    verified: column('verified'),
    converted: column('converted'),
    inWindow: column('in_window'),
    tsMs: column('ts_ms'),
    addressSubscribers: column('address_subscribers'),
    addressExpected: column('address_expected'),
    clickIds: strings('event_id'),
    placement: strings('placement_id'),
    publication: strings('publication_id'),
    campaign: strings('campaign_id'),
    subscriber: strings('subscriber_key'),
  };
}
