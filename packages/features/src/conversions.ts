import {
  type ColumnTable,
  DAY_MS,
  HOUR_MS,
  type StringColumn,
  stringColumn,
  stringData,
} from '@waggle/core';
import { featuresError } from './errors.js';
import { type FeatureStore, QUERY_SETTINGS, tableReader } from './feature-store.js';
import { VERIFIED_CLICK_SQL } from './label.js';
import { numbers } from './query-columns.js';

/** A conversion counts within this time of its click by default: Criteo's thirty-day last click. */
export const CONVERSION_WINDOW_MS = 30 * DAY_MS;

/** Ends of the delay buckets of the default window; a bucket is half open, [end before it, end). */
export const CONVERSION_BUCKETS_MS: readonly number[] = [
  HOUR_MS,
  6 * HOUR_MS,
  DAY_MS,
  3 * DAY_MS,
  7 * DAY_MS,
  14 * DAY_MS,
  CONVERSION_WINDOW_MS,
];

/** The default buckets that a shorter or longer window has. */
export function conversionBuckets(windowMs: number): number[] {
  if (!(windowMs >= HOUR_MS && Number.isFinite(windowMs))) {
    throw featuresError(
      'WAGGLE_FEATURES_SHAPE',
      `a conversion window of ${windowMs} ms is too short`,
    );
  }
  return [...CONVERSION_BUCKETS_MS.filter((end) => end < windowMs), windowMs];
}

/** Attributes by which conversion rates differ, as valid when the ad was sent. */
export const CONVERSION_KEYS = [
  'campaign',
  'advertiser',
  'campaign_category',
  'goal',
  'creative',
  'publication',
  'pub_category',
  'audience',
] as const;
export type ConversionKey = (typeof CONVERSION_KEYS)[number];

/**
 * Clicks of sent ads by the delay of their first conversion: one row per ad with clicks. The first conversion of any
 * verified click of a subscriber on the ad counts for the subscriber's first one; reversals change its value, not that it came.
 */
export interface ConversionRows {
  readonly nRows: number;
  /** Ends of the buckets, ascending; the last is the window. */
  readonly bucketsMs: readonly number[];
  readonly asOfMs: number;
  /** [nRows] when the ad was sent. */
  readonly decisionTsMs: Float64Array;
  /** [nRows] unique verified clicks by `asOfMs`, and those of them with a conversion by then, whatever their age. */
  readonly clicks: Float64Array;
  readonly converted: Float64Array;
  /** [nRows × nBuckets] clicks old enough to have seen the whole bucket, and those that converted in it. */
  readonly observed: Float64Array;
  readonly conversions: Float64Array;
  /** [nRows] of the clicks that have seen the whole window, those that converted within it. */
  readonly maturedConversions: Float64Array;
  readonly keys: Readonly<Record<ConversionKey, StringColumn>>;
  readonly placement: StringColumn;
}

export interface ConversionOptions {
  readonly tenantId: string;
  /** Ads sent in [fromMs, toMs). */
  readonly fromMs: number;
  readonly toMs: number;
  /** What is known now: later clicks and conversions are not read. */
  readonly asOfMs: number;
  /** @default CONVERSION_BUCKETS_MS */
  readonly bucketsMs?: readonly number[];
  readonly signal?: AbortSignal;
}

/**
 * Counts clicks and conversions per ad and delay bucket. One statement, one pass over clicks and conversions.
 * @throws WAGGLE_FEATURES_SHAPE for buckets that do not rise
 */
export async function buildConversionRows(
  store: FeatureStore,
  options: ConversionOptions,
): Promise<ConversionRows> {
  const { bucketsMs = CONVERSION_BUCKETS_MS } = options;
  if (
    bucketsMs.length === 0 ||
    bucketsMs.some((end, b) => !Number.isSafeInteger(end) || end <= (bucketsMs[b - 1] ?? 0))
  ) {
    throw featuresError(
      'WAGGLE_FEATURES_SHAPE',
      `buckets must end later and later, got ${bucketsMs.join(', ')}`,
    );
  }
  const table = await store.queryColumns(conversionSql(options, bucketsMs), {
    params: { tenant_id: options.tenantId },
    settings: QUERY_SETTINGS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const { nRows } = table;
  const nBuckets = bucketsMs.length;
  const column = (name: string) => Float64Array.from(numbers(table, name));
  const matrix = (name: string): Float64Array => {
    const out = new Float64Array(nRows * nBuckets);
    for (let b = 0; b < nBuckets; b++) {
      const values = numbers(table, `${name}_${b}`);
      for (let i = 0; i < nRows; i++) out[i * nBuckets + b] = values[i]!;
    }
    return out;
  };
  return {
    nRows,
    bucketsMs,
    asOfMs: options.asOfMs,
    decisionTsMs: column('sent_ms'),
    clicks: column('clicks'),
    converted: column('converted'),
    observed: matrix('observed'),
    conversions: matrix('conversions'),
    maturedConversions: column('matured'),
    keys: Object.fromEntries(
      CONVERSION_KEYS.map((key) => [key, strings(table, `k_${key}`)]),
    ) as Record<ConversionKey, StringColumn>,
    placement: strings(table, 'placement_id'),
  };
}

const strings = (table: ColumnTable, name: string): StringColumn =>
  table.nRows === 0 ? stringColumn([]) : stringData(table, name);

function conversionSql(o: ConversionOptions, bucketsMs: readonly number[]): string {
  const read = tableReader({ untilMs: o.asOfMs });
  const verified = read.repeatable('clicks', VERIFIED_CLICK_SQL);
  const delay = 'if(v.conversion_ms > 0, v.conversion_ms - k.click_ms, -1)';
  const perBucket = bucketsMs.flatMap((end, b) => [
    `toFloat64(countIf(k.click_ms + ${end} <= ${o.asOfMs})) AS observed_${b}`,
    `toFloat64(countIf(k.click_ms + ${end} <= ${o.asOfMs} AND delay >= ${bucketsMs[b - 1] ?? 0} AND delay < ${end})) AS conversions_${b}`,
  ]);
  const valid = (table: string, id: string, columns: string) =>
    `(SELECT ${id}, toUnixTimestamp64Milli(updated_at) AS since_ms, ${columns} FROM ${read.versions(table)})`;
  return `
SELECT p.placement_id AS placement_id, toFloat64(p.sent_ms) AS sent_ms, p.campaign_id AS k_campaign, p.creative_id AS k_creative,
  p.publication_id AS k_publication, toString(c.advertiser_id) AS k_advertiser, toString(c.category) AS k_campaign_category,
  toString(c.goal) AS k_goal, toString(u.category) AS k_pub_category, toString(u.audience) AS k_audience, n.* EXCEPT (placement_id)
FROM (
  SELECT placement_id, toUnixTimestamp64Milli(ts) AS sent_ms, publication_id, campaign_id, creative_id
  FROM ${read.events('placements', `type = 'placement.sent' AND toUnixTimestamp64Milli(ts) >= ${o.fromMs} AND toUnixTimestamp64Milli(ts) < ${o.toMs}`)}
) AS p
INNER JOIN (
  SELECT k.placement_id AS placement_id, toFloat64(count()) AS clicks, toFloat64(countIf(delay >= 0)) AS converted,
    toFloat64(countIf(k.click_ms + ${bucketsMs.at(-1)} <= ${o.asOfMs} AND delay >= 0 AND delay < ${bucketsMs.at(-1)})) AS matured,
    ${perBucket.join(',\n    ')}
  FROM (
    SELECT placement_id, subscriber_key, click_ms, conversion_ms, ${delay.replaceAll('v.', '').replaceAll('k.', '')} AS delay
    FROM (
      SELECT a.placement_id AS placement_id, a.subscriber_key AS subscriber_key, min(a.ms) AS click_ms,
        minIf(b.conversion_ms, b.conversion_ms > 0) AS conversion_ms
      FROM (SELECT event_id, placement_id, subscriber_key, toUnixTimestamp64Milli(ts) AS ms FROM ${verified}) AS a
      LEFT JOIN (
        SELECT click_id, min(toUnixTimestamp64Milli(ts)) AS conversion_ms
        FROM ${read.repeatable('conversions', "type = 'conversion'")}
        GROUP BY click_id
      ) AS b ON b.click_id = a.event_id
      GROUP BY placement_id, subscriber_key
    )
  ) AS k
  GROUP BY placement_id
) AS n ON n.placement_id = p.placement_id
ASOF LEFT JOIN ${valid('campaigns', 'campaign_id', 'advertiser_id, category, goal')} AS c ON c.campaign_id = p.campaign_id AND c.since_ms <= p.sent_ms
ASOF LEFT JOIN ${valid('publications', 'publication_id', 'category, audience')} AS u ON u.publication_id = p.publication_id AND u.since_ms <= p.sent_ms
ORDER BY sent_ms, placement_id`;
}
