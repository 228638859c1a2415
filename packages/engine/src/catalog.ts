import {
  type Column,
  type ColumnTable,
  HOUR_MS,
  numericColumn,
  stringColumn,
  stringListColumn,
} from '@waggle/core';
import { IS_LEDGER_ENTRY, LEDGER_ID_PATTERN } from '@waggle/store/ledger';
import { engineError } from './errors.js';

/** The part of a `Store` (@waggle/store) that a catalog needs. */
export interface CatalogStore {
  query<T extends object>(
    sql: string,
    options?: { params?: Record<string, unknown>; signal?: AbortSignal },
  ): Promise<T[]>;
}

export interface CatalogRequest {
  readonly tenantId: string;
  /** Events up to then; UTC ms. */
  readonly asOfMs: number;
  /** Entities in the version valid then, money as it stood then; UTC ms. @default asOfMs */
  readonly knownAsOfMs?: number;
  readonly signal?: AbortSignal;
}

/** Entities in id order; the row numbers are the ordinals of the whole release. */
export interface Catalog {
  readonly publications: ColumnTable;
  readonly campaigns: ColumnTable;
  readonly creatives: ColumnTable;
  readonly advertisers: ColumnTable;
}

/** Delivered emails that the network-wide open rate is worth beside a publication's own. */
const OPEN_RATE_PRIOR_DELIVERED = 5_000;
/** Share of a list that a send reaches, for publications without a send yet. */
const DELIVERED_SHARE = 0.98;
/** Open rate assumed for a network without any send. */
const FALLBACK_OPEN_RATE = 0.3;
/** Sends whose opens are complete enough to give a rate. */
const MATURITY_MS = 72 * 3_600_000;

type Row = Record<string, unknown>;

/**
 * Reads what a release serves from: every entity in its version valid at `knownAsOfMs` and what each campaign has committed by then; what
 * each publication's sends usually deliver and how many of those are opened by people within 72 h, as events up to `asOfMs` tell.
 * @throws WAGGLE_CATALOG_EMPTY, store errors
 */
export async function buildCatalog(store: CatalogStore, request: CatalogRequest): Promise<Catalog> {
  const { asOfMs, knownAsOfMs = asOfMs } = request;
  const params = {
    ...{ tenant: request.tenantId, as_of: asOfMs },
    ...{ known_as_of: knownAsOfMs, maturity: MATURITY_MS },
  };
  const options = { params, ...(request.signal === undefined ? {} : { signal: request.signal }) };
  const read = (sql: string) => store.query<Row>(sql, options);
  const [publications, campaigns, creatives, advertisers, sends, spent] = [
    await read(current('publications', 'publication_id')),
    await read(current('campaigns', 'campaign_id')),
    await read(current('creatives', 'creative_id')),
    await read(current('advertisers', 'advertiser_id')),
    await read(SENDS_SQL),
    await read(COMMITTED_SQL),
  ];
  if (publications.length === 0 || campaigns.length === 0) {
    throw engineError(
      'WAGGLE_CATALOG_EMPTY',
      `${request.tenantId} has ${publications.length} publications and ${campaigns.length} campaigns at ${new Date(knownAsOfMs).toISOString()}`,
      { details: { tenantId: request.tenantId, asOfMs: knownAsOfMs } },
    );
  }
  const meta = { tenant_id: request.tenantId, as_of_ms: knownAsOfMs };

  const sendsOf = new Map(sends.map((row) => [row['publication_id'] as string, row]));
  const networkDelivered = sum(sends, 'delivered');
  const networkRate =
    networkDelivered > 0 ? sum(sends, 'human_opens') / networkDelivered : FALLBACK_OPEN_RATE;
  const openRate = (id: string): number => {
    const own = sendsOf.get(id);
    const opens = Number(own?.['human_opens'] ?? 0) + OPEN_RATE_PRIOR_DELIVERED * networkRate;
    return Math.min(1, opens / (Number(own?.['delivered'] ?? 0) + OPEN_RATE_PRIOR_DELIVERED));
  };
  const delivered = (row: Row): number => {
    const recent = Number(sendsOf.get(row['publication_id'] as string)?.['recent_delivered'] ?? 0);
    return Math.max(
      1,
      Math.round(recent > 0 ? recent : Number(row['active_subscribers']) * DELIVERED_SHARE),
    );
  };
  const spentOf = new Map<string, number>();
  const sharesOf = new Map<string, string[]>();
  for (const row of spent) {
    const id = row['campaign_id'] as string;
    const micros = Math.max(0, Number(row['committed_micros']));
    if (!row['live']) spentOf.set(id, micros);
    else if (micros > 0) {
      const share = `${row['ledger'] as string}=${micros}`;
      sharesOf.set(id, [...(sharesOf.get(id) ?? []), share]);
    }
  }

  return {
    publications: table(publications, meta, {
      ...strings(
        publications,
        'publication_id',
        'publisher_id',
        'name',
        'language',
        'category',
        'status',
      ),
      ...lists(
        publications,
        'tags',
        'allowed_categories',
        'blocked_categories',
        'blocked_advertisers',
      ),
      ...numbers(publications, 'max_ads_per_send', 'min_payout_micros', 'active_subscribers'),
      delivered_per_send: numericColumn('f64', Float64Array.from(publications, delivered)),
      eligible_open_rate: numericColumn(
        'f64',
        Float64Array.from(publications, (row) => openRate(row['publication_id'] as string)),
      ),
    }),
    campaigns: table(campaigns, meta, {
      ...strings(
        campaigns,
        'campaign_id',
        'advertiser_id',
        'name',
        'category',
        'goal',
        'pricing',
        'status',
      ),
      ...lists(campaigns, 'target_languages', 'target_categories'),
      ...numbers(
        campaigns,
        'bid_micros',
        'budget_micros',
        'daily_budget_micros',
        'guaranteed_units',
      ),
      ...numbers(campaigns, 'flight_start_ms', 'flight_end_ms'),
      spent_micros: numericColumn(
        'f64',
        Float64Array.from(campaigns, (row) => spentOf.get(row['campaign_id'] as string) ?? 0),
      ),
      // `<ledger id>=<micros>` for each live ledger: whoever serves leaves its own out.
      ledger_micros: stringListColumn(
        campaigns.map((row) => sharesOf.get(row['campaign_id'] as string) ?? []),
      ),
    }),
    creatives: table(
      creatives,
      meta,
      strings(creatives, 'creative_id', 'campaign_id', 'kind', 'headline', 'status'),
    ),
    advertisers: table(
      advertisers,
      meta,
      strings(
        advertisers,
        'advertiser_id',
        'name',
        'domain',
        'category',
        'competitor_group',
        'status',
      ),
    ),
  };
}

/** Every entity in its highest version that was true at the as-of time. */
function current(entities: string, id: string): string {
  const flight =
    entities === 'campaigns'
      ? ', toUnixTimestamp64Milli(flight_start) AS flight_start_ms, toUnixTimestamp64Milli(flight_end) AS flight_end_ms'
      : '';
  return `SELECT *${flight} FROM (
    SELECT * FROM ${entities}
    WHERE tenant_id = {tenant:String} AND toUnixTimestamp64Milli(updated_at) <= {known_as_of:Int64}
    ORDER BY ${id}, version DESC LIMIT 1 BY ${id}
  ) ORDER BY ${id}`;
}

/**
 * Per publication: emails delivered by matured sends and people's opens of them in the hours that are over within 72 h, which are
 * those that count; what a recent send delivers.
 */
const SENDS_SQL = `SELECT publication_id,
    sumIf(s.delivered, matured) AS delivered,
    sumIf(o.human_opens, matured) AS human_opens,
    arrayAvg(arraySlice(arrayReverseSort(x -> x.1, groupArray((s.ts_ms, s.delivered))), 1, 10).2) AS recent_delivered
  FROM (
    SELECT post_id, publication_id, delivered, toUnixTimestamp64Milli(ts) AS ts_ms,
      ts_ms + {maturity:Int64} <= {as_of:Int64} AS matured
    FROM sends FINAL
    WHERE tenant_id = {tenant:String} AND toUnixTimestamp64Milli(ts) <= {as_of:Int64}
  ) AS s
  LEFT JOIN (
    SELECT h.post_id AS post_id, sum(h.human_opens) AS human_opens
    FROM (
      SELECT post_id, toUnixTimestamp64Milli(ts) AS hour_ms, human_opens FROM opens FINAL
      WHERE tenant_id = {tenant:String} AND toUnixTimestamp64Milli(ts) <= {as_of:Int64}
    ) AS h
    INNER JOIN (
      SELECT post_id, toUnixTimestamp64Milli(ts) AS sent_ms FROM sends FINAL
      WHERE tenant_id = {tenant:String} AND toUnixTimestamp64Milli(ts) <= {as_of:Int64}
    ) AS t ON t.post_id = h.post_id
    WHERE h.hour_ms + ${HOUR_MS} <= t.sent_ms + {maturity:Int64}
    GROUP BY post_id
  ) AS o USING (post_id)
  GROUP BY publication_id`;

/**
 * Per campaign and whose books say it: money that is gone or held. `ledger` is the id of a live budget ledger, or ''
 * for entries of the time before these had ids; a platform's own entries are not `live` and count up to the as-of
 * time, without references that a live ledger has, whenever it came to know them. What live ledgers hold counts as it
 * stands, since it is spoken for. A reference counts what was charged for it; while nothing was charged and it was not
 * released, what it reserved. Adjustments are added as they are. Of a campaign that the platform keeps no other
 * entries of, its placements count likewise: what they were settled at, until then and unless they were called off what they reserved.
 */
const COMMITTED_SQL = `SELECT campaign_id, live, ledger,
    sum(if(known AND NOT live, 0, committed) + adjusted) AS committed_micros
  FROM (
    SELECT *, max(live) OVER (PARTITION BY campaign_id, reference_id) AS known FROM (
      SELECT campaign_id, reference_id, live, ledger,
        sumIf(amount_micros, counts AND type = 'ledger.charge') AS charged,
        countIf(counts AND type = 'ledger.charge') AS n_charges,
        countIf(counts AND type = 'ledger.release') AS n_releases,
        sumIf(amount_micros, counts AND type = 'ledger.reserve') AS reserved,
        sumIf(amount_micros, counts AND type = 'ledger.adjust') AS adjusted,
        multiIf(n_charges > 0, charged, n_releases > 0, 0, reserved) AS committed
      FROM (
        SELECT campaign_id, reference_id, type, amount_micros,
          ${IS_LEDGER_ENTRY} AS live,
          extract(event_id, '${LEDGER_ID_PATTERN}') AS ledger,
          live OR toUnixTimestamp64Milli(ts) <= {known_as_of:Int64} AS counts
        FROM ledger_entries FINAL
        WHERE tenant_id = {tenant:String}
      )
      GROUP BY campaign_id, reference_id, live, ledger
      UNION ALL
      SELECT campaign_id, placement_id AS reference_id, false AS live, '' AS ledger,
        argMinIf(micros, ts, what = 'settled') AS charged,
        countIf(what = 'settled') AS n_charges,
        countIf(what = 'over') AS n_releases,
        argMinIf(micros, ts, what = 'held') AS reserved,
        0 AS adjusted,
        multiIf(
          n_charges > 0 AND (n_releases = 0 OR minIf(ts, what = 'settled') <= minIf(ts, what = 'over')), charged,
          n_releases > 0, 0,
          reserved
        ) AS committed
      FROM (
        SELECT campaign_id, placement_id, ts, reserved_micros AS micros,
          if(type IN ('placement.reserved', 'placement.sent'), 'held', 'over') AS what
        FROM placements FINAL
        WHERE tenant_id = {tenant:String} AND toUnixTimestamp64Milli(ts) <= {known_as_of:Int64}
        UNION ALL
        SELECT campaign_id, placement_id, ts, charged_micros AS micros, 'settled' AS what
        FROM settlements FINAL
        WHERE tenant_id = {tenant:String} AND toUnixTimestamp64Milli(ts) <= {known_as_of:Int64}
      )
      WHERE campaign_id NOT IN (
        SELECT campaign_id FROM ledger_entries
        WHERE tenant_id = {tenant:String} AND NOT ${IS_LEDGER_ENTRY} AND type != 'ledger.adjust'
      )
      GROUP BY campaign_id, placement_id
    )
  )
  GROUP BY campaign_id, live, ledger
  ORDER BY campaign_id, live, ledger`;

function table(
  rows: readonly Row[],
  meta: ColumnTable['meta'],
  columns: Record<string, Column>,
): ColumnTable {
  return { nRows: rows.length, meta, columns };
}

function strings(rows: readonly Row[], ...names: string[]): Record<string, Column> {
  return Object.fromEntries(
    names.map((name) => [name, stringColumn(rows.map((row) => String(row[name])))]),
  );
}

function lists(rows: readonly Row[], ...names: string[]): Record<string, Column> {
  return Object.fromEntries(
    names.map((name) => [name, stringListColumn(rows.map((row) => row[name] as string[]))]),
  );
}

function numbers(rows: readonly Row[], ...names: string[]): Record<string, Column> {
  return Object.fromEntries(
    names.map((name) => [
      name,
      numericColumn(
        'f64',
        Float64Array.from(rows, (row) => Number(row[name])),
      ),
    ]),
  );
}

function sum(rows: readonly Row[], name: string): number {
  let total = 0;
  for (const row of rows) total += Number(row[name]);
  return total;
}
