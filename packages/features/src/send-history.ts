import {
  type ColumnTable,
  HOUR_MS,
  type HourlyOutcomes,
  type SendHistory,
  type StringColumn,
  stringColumn,
  stringData,
} from '@waggle/core';
import { entityReader, type FeatureStore, QUERY_SETTINGS, tableReader } from './feature-store.js';
import { CLICK_WINDOW_MS, VERIFIED_CLICK_SQL } from './label.js';
import { numbers } from './query-columns.js';
import { clicksPerPlacementSql } from './sources.js';

export interface SendHistoryOptions {
  readonly tenantId: string;
  /** Sends planned in [fromMs, toMs), those that are still to come among them. */
  readonly fromMs: number;
  readonly toMs: number;
  /** What is known now: nothing later is read. */
  readonly asOfMs: number;
  /** How long before its planned time a send is forecast: ad places and cadence are as known then. Default 24 h. */
  readonly leadMs?: number;
  readonly signal?: AbortSignal;
}

export interface NamedSendHistory extends SendHistory {
  readonly posts: StringColumn;
  /** [nPublications] */
  readonly publicationIds: readonly string[];
}

/**
 * Planned and finished sends with what came of them, for forecasting. Opens are unique opens by people and clicks unique
 * verified ad clicks within 72 h, both NaN until those are over at `asOfMs`; by hour they are known as far as the hours are over.
 * Four statements, two passes over the tenant's events.
 */
export async function buildSendHistory(
  store: FeatureStore,
  options: SendHistoryOptions,
): Promise<NamedSendHistory> {
  const query = {
    params: { tenant_id: options.tenantId },
    settings: QUERY_SETTINGS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
  const sends = await store.queryColumns(sendsSql(options), query);
  const lists = await store.queryColumns(listsSql(options), query);

  const numberOf = new Map<string, number>();
  const dense = (table: ColumnTable): Uint32Array => {
    if (table.nRows === 0) return new Uint32Array(0);
    const { dictionary, codes } = stringData(table, 'publication_id');
    return Uint32Array.from(codes, (code) => {
      const id = dictionary[code]!;
      let number = numberOf.get(id);
      if (number === undefined) {
        number = numberOf.size;
        numberOf.set(id, number);
      }
      return number;
    });
  };
  const publication = dense(sends);
  const listPublication = dense(lists);
  const column = (table: ColumnTable, name: string) => Float64Array.from(numbers(table, name));
  const plannedMs = column(sends, 'planned_ms');
  const local = localTimes(sends, plannedMs);
  const posts = sends.nRows === 0 ? stringColumn([]) : stringData(sends, 'post_id');
  const sentMs = column(sends, 'sent_ms');
  const hours = (kind: HourlyCountsOptions['kind']) =>
    buildHourlyCounts(
      store,
      { nSends: sends.nRows, posts, sentMs },
      { ...options, kind, nHours: CLICK_WINDOW_MS / HOUR_MS },
    );
  return {
    nSends: sends.nRows,
    nPublications: numberOf.size,
    publicationIds: [...numberOf.keys()],
    posts,
    publication,
    plannedMs,
    sentMs,
    ...local,
    nSlots: column(sends, 'n_slots'),
    cadencePerWeek: column(sends, 'cadence_per_week'),
    recipients: column(sends, 'recipients'),
    delivered: column(sends, 'delivered'),
    opens: column(sends, 'opens'),
    clicks: column(sends, 'clicks'),
    outcomeMs: CLICK_WINDOW_MS,
    hourly: { opens: await hours('opens'), clicks: await hours('clicks') },
    lists: {
      publication: listPublication,
      atMs: column(lists, 'at_ms'),
      subscribers: column(lists, 'subscribers'),
    },
  };
}

/** A post counts with the time it was first planned for, which is known from the start. */
function sendsSql(options: SendHistoryOptions): string {
  const { fromMs, toMs, asOfMs } = options;
  const leadMs = options.leadMs ?? 24 * HOUR_MS;
  const visibility = { untilMs: asOfMs };
  const read = tableReader(visibility);
  const entities = entityReader(visibility);
  return `
SELECT p.post_id AS post_id, p.publication_id AS publication_id, toFloat64(p.planned) AS planned_ms,
  if(s.sent = 0, nan, toFloat64(s.sent)) AS sent_ms,
  if(s.sent = 0, nan, toFloat64(s.recipients)) AS recipients,
  if(s.sent = 0, nan, toFloat64(s.delivered)) AS delivered,
  if(s.sent = 0 OR s.sent + ${CLICK_WINDOW_MS} > ${asOfMs}, nan, toFloat64(o.opens)) AS opens,
  if(s.sent = 0 OR s.sent + ${CLICK_WINDOW_MS} > ${asOfMs}, nan, toFloat64(c.clicks)) AS clicks,
  toFloat64(l.n_slots) AS n_slots,
  v.cadence_per_week AS cadence_per_week, toString(v.timezone) AS timezone
FROM (
  SELECT post_id, any(publication_id) AS publication_id, toUnixTimestamp64Milli(argMin(planned_at, version)) AS planned,
    planned - ${leadMs} AS known_ms
  FROM ${entities('posts')}
  GROUP BY post_id
  HAVING planned >= ${fromMs} AND planned < ${toMs}
) AS p
LEFT JOIN (
  SELECT post_id, toUnixTimestamp64Milli(ts) AS sent, recipients, delivered FROM ${read.events('sends')}
) AS s ON s.post_id = p.post_id
LEFT JOIN (
  SELECT h.post_id AS post_id, sum(h.human_opens) AS opens
  FROM (SELECT post_id, toUnixTimestamp64Milli(ts) AS hour_ms, human_opens FROM ${read.events('opens')}) AS h
  INNER JOIN (SELECT post_id, toUnixTimestamp64Milli(ts) AS sent_at FROM ${read.events('sends')}) AS t ON t.post_id = h.post_id
  WHERE h.hour_ms + ${HOUR_MS} <= t.sent_at + ${CLICK_WINDOW_MS}
  GROUP BY post_id
) AS o ON o.post_id = p.post_id
LEFT JOIN (
  SELECT a.post_id AS post_id, sum(k.clicks) AS clicks
  FROM (SELECT placement_id, post_id FROM ${read.events('placements', "type = 'placement.sent'")}) AS a
  INNER JOIN (${clicksPerPlacementSql(read)}) AS k ON k.placement_id = a.placement_id
  GROUP BY post_id
) AS c ON c.post_id = p.post_id
LEFT JOIN (
  SELECT q.post_id AS post_id, count() AS n_slots
  FROM (SELECT post_id, slot_id, min(toUnixTimestamp64Milli(updated_at)) AS since FROM ${entities('slots')} GROUP BY post_id, slot_id) AS q
  INNER JOIN (
    SELECT post_id, toUnixTimestamp64Milli(argMin(planned_at, version)) - ${leadMs} AS known_ms FROM ${entities('posts')} GROUP BY post_id
  ) AS r ON r.post_id = q.post_id
  WHERE q.since <= r.known_ms
  GROUP BY post_id
) AS l ON l.post_id = p.post_id
ASOF LEFT JOIN (
  SELECT publication_id, toUnixTimestamp64Milli(updated_at) AS since_ms, cadence_per_week, timezone FROM ${entities('publications')}
) AS v ON v.publication_id = p.publication_id AND v.since_ms <= p.known_ms
ORDER BY p.planned, p.post_id`;
}

/** List sizes as reported; what was valid when the window begins counts as reported then. */
function listsSql({ fromMs, asOfMs }: SendHistoryOptions): string {
  const entities = entityReader({ untilMs: asOfMs });
  return `
SELECT publication_id, toFloat64(at) AS at_ms, toFloat64(argMax(active_subscribers, version)) AS subscribers
FROM (
  SELECT publication_id, version, active_subscribers, greatest(toUnixTimestamp64Milli(updated_at), ${fromMs}) AS at
  FROM ${entities('publications')}
)
GROUP BY publication_id, at
ORDER BY at, publication_id`;
}

export interface HourlyCountsOptions {
  readonly tenantId: string;
  readonly asOfMs: number;
  /** `opens` by people in clock hours, the hour of sending first; `clicks` unique verified ones in hours since sending. */
  readonly kind: keyof HourlyOutcomes;
  readonly nHours: number;
  readonly signal?: AbortSignal;
}

/**
 * Events of each send of a history by hour, for the curve of `forecasting`; NaN for hours that are not over at `asOfMs` and for
 * sends that were not sent. One statement.
 * @returns float64 [nSends × nHours], row-major, rows as in the history
 */
export async function buildHourlyCounts(
  store: FeatureStore,
  history: Pick<NamedSendHistory, 'nSends' | 'posts' | 'sentMs'>,
  options: HourlyCountsOptions,
): Promise<Float64Array> {
  const { nHours, asOfMs } = options;
  const table = await store.queryColumns(hourlySql(options), {
    params: { tenant_id: options.tenantId },
    settings: QUERY_SETTINGS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const out = new Float64Array(history.nSends * nHours);
  for (let i = 0; i < history.nSends; i++) {
    const sent = history.sentMs[i]!;
    const from = options.kind === 'opens' ? Math.floor(sent / HOUR_MS) * HOUR_MS : sent;
    const over = Number.isNaN(sent) ? 0 : Math.floor((asOfMs - from) / HOUR_MS);
    out.fill(Number.NaN, i * nHours + Math.max(0, Math.min(nHours, over)), (i + 1) * nHours);
  }
  if (table.nRows === 0) return out;
  const rowOf = new Map<string, number>();
  const { dictionary, codes } = history.posts;
  for (let i = 0; i < history.nSends; i++) rowOf.set(dictionary[codes[i]!]!, i);
  const posts = stringData(table, 'post_id');
  const hour = numbers(table, 'hour');
  const n = numbers(table, 'n');
  const rows = posts.dictionary.map((id) => rowOf.get(id));
  for (let k = 0; k < table.nRows; k++) {
    const row = rows[posts.codes[k]!];
    // NaN stays: the hour is not over.
    if (row !== undefined) out[row * nHours + hour[k]!]! += n[k]!;
  }
  return out;
}

function hourlySql({ kind, nHours, asOfMs }: HourlyCountsOptions): string {
  const read = tableReader({ untilMs: asOfMs });
  const sent = `(SELECT post_id, toUnixTimestamp64Milli(ts) AS sent_ms FROM ${read.events('sends')})`;
  const events =
    kind === 'opens'
      ? `SELECT post_id, toUnixTimestamp64Milli(ts) AS ms, toFloat64(human_opens) AS weight FROM ${read.events('opens')}`
      : `SELECT any(post_id) AS post_id, min(toUnixTimestamp64Milli(ts)) AS ms, toFloat64(1) AS weight FROM ${read.repeatable('clicks', VERIFIED_CLICK_SQL)} GROUP BY placement_id, subscriber_key`;
  const origin = kind === 'opens' ? `intDiv(s.sent_ms, ${HOUR_MS}) * ${HOUR_MS}` : 's.sent_ms';
  return `
SELECT e.post_id AS post_id, toFloat64(intDiv(e.ms - ${origin}, ${HOUR_MS})) AS hour, sum(e.weight) AS n
FROM (${events}) AS e
INNER JOIN ${sent} AS s ON s.post_id = e.post_id
WHERE e.ms >= ${origin} AND e.ms < ${origin} + ${nHours * HOUR_MS}
GROUP BY post_id, hour
ORDER BY post_id, hour`;
}

const WEEKDAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];

/** Weekday and hour where the publication is; UTC for a time zone that is unknown here. */
function localTimes(
  sends: ColumnTable,
  plannedMs: Float64Array,
): Pick<SendHistory, 'localWeekday' | 'localHour'> {
  const localWeekday = new Uint8Array(plannedMs.length);
  const localHour = new Uint8Array(plannedMs.length);
  if (plannedMs.length === 0) return { localWeekday, localHour };
  const { dictionary, codes } = stringData(sends, 'timezone');
  const formats = dictionary.map(formatIn);
  for (let i = 0; i < plannedMs.length; i++) {
    const parts = formats[codes[i]!]!.formatToParts(plannedMs[i]!);
    const of = (type: string) => parts.find((part) => part.type === type)!.value;
    localWeekday[i] = WEEKDAYS.indexOf(of('weekday'));
    localHour[i] = Number(of('hour'));
  }
  return { localWeekday, localHour };
}

function formatIn(timeZone: string): Intl.DateTimeFormat {
  const options = { weekday: 'short', hour: '2-digit', hourCycle: 'h23' } as const;
  try {
    return new Intl.DateTimeFormat('en-US', { ...options, timeZone: timeZone || 'UTC' });
  } catch {
    return new Intl.DateTimeFormat('en-US', { ...options, timeZone: 'UTC' });
  }
}
