import { ENTITY_TABLES, EVENT_TABLES } from '@waggle/core/contract';

/**
 * How each column of the contract is held: `dict` = one of few strings, `id` = a different string per row,
 * `key` = a subscriber key, `text`, `list` of words, `time` in UTC milliseconds, numbers, `bool`.
 */
export type ColumnKind =
  | 'dict'
  | 'id'
  | 'key'
  | 'text'
  | 'list'
  | 'time'
  | 'i64'
  | 'f64'
  | 'u32'
  | 'bool';

const KIND_BY_NAME: Readonly<Record<string, ColumnKind>> = {
  version: 'i64',
  updated_at: 'time',
  created_at: 'time',
  ts: 'time',
  planned_at: 'time',
  flight_start: 'time',
  flight_end: 'time',
  expires_at: 'time',
  event_id: 'id',
  name: 'text',
  description: 'text',
  title: 'text',
  headline: 'text',
  body: 'text',
  landing_url: 'text',
  domain: 'text',
  request: 'text',
  items: 'text',
  filtered: 'text',
  request_id: 'text',
  tags: 'list',
  allowed_categories: 'list',
  blocked_categories: 'list',
  blocked_advertisers: 'list',
  target_languages: 'list',
  target_categories: 'list',
  degraded: 'list',
  cadence_per_week: 'f64',
  propensity: 'f64',
  active_subscribers: 'u32',
  max_ads_per_send: 'u32',
  guaranteed_units: 'u32',
  position: 'u32',
  recipients: 'u32',
  delivered: 'u32',
  unsubscribes: 'u32',
  n_slots: 'u32',
  n_ads: 'u32',
  menu_size: 'u32',
  rank: 'u32',
  human_opens: 'u32',
  mpp_opens: 'u32',
  proxy_opens: 'u32',
  links_within_10s: 'u32',
  seed: 'u32',
  latency_us: 'u32',
  ms_since_delivery: 'i64',
  auto_accept: 'bool',
  honeypot: 'bool',
  test: 'bool',
  subscriber_key: 'key',
};

export interface TableSpec {
  readonly name: string;
  readonly columns: readonly (readonly [name: string, kind: ColumnKind])[];
}

function kindOf(column: string): ColumnKind {
  if (column.endsWith('_micros')) return 'i64';
  return KIND_BY_NAME[column] ?? 'dict';
}

/** Every table of the contract, columns in the contract's order. */
export const TABLES: Readonly<Record<string, TableSpec>> = Object.fromEntries(
  [...Object.values(ENTITY_TABLES), ...Object.values(EVENT_TABLES)].map(({ table, schema }) => [
    table,
    {
      name: table,
      columns: Object.keys(schema.properties).map((column) => [column, kindOf(column)] as const),
    },
  ]),
);

export const TRUTH_TABLES = {
  placements: {
    name: 'placements',
    columns: [
      ['placement_id', 'text'],
      ['publication_id', 'dict'],
      ['campaign_id', 'dict'],
      ['creative_id', 'dict'],
      ['sent_at', 'time'],
      ['mode', 'dict'],
      ['propensity', 'f64'],
      ['delivered', 'u32'],
      ['base', 'f64'],
      ['publication', 'f64'],
      ['campaign', 'f64'],
      ['affinity', 'f64'],
      ['creative', 'f64'],
      ['place', 'f64'],
      ['time', 'f64'],
      ['fatigue', 'f64'],
      ['drift', 'f64'],
      ['send_noise', 'f64'],
      ['p_oracle', 'f64'],
      ['p_true', 'f64'],
      ['share_72h', 'f64'],
      ['human_clicks', 'u32'],
      ['human_clicks_72h', 'u32'],
    ],
  },
  clicks: {
    name: 'clicks',
    columns: [
      ['event_id', 'id'],
      ['placement_id', 'dict'],
      ['cause', 'dict'],
      ['human', 'bool'],
    ],
  },
  offers: {
    name: 'offers',
    columns: [
      ['offer_id', 'text'],
      ['publication_id', 'dict'],
      ['campaign_id', 'dict'],
      ['p_accept', 'f64'],
      ['p_downvote', 'f64'],
      ['log_payout_ratio', 'f64'],
      ['fit', 'f64'],
      ['outcome', 'dict'],
    ],
  },
  publications: {
    name: 'publications',
    columns: [
      ['publication_id', 'text'],
      ['observed_effect', 'f64'],
      ['latent_effect', 'f64'],
      ['accept_effect', 'f64'],
      ['reservation_cpm', 'f64'],
      ['human_open_rate', 'f64'],
      ['mpp_share', 'f64'],
      ['scanner_share', 'f64'],
      ['no_show_rate', 'f64'],
      ['fraud_ring', 'bool'],
      ['mis_tagged', 'bool'],
      ['topics', 'text'],
    ],
  },
  campaigns: {
    name: 'campaigns',
    columns: [
      ['campaign_id', 'text'],
      ['effect', 'f64'],
      ['conversion_rate', 'f64'],
      ['conversion_value', 'f64'],
      ['kind', 'dict'],
      ['committed_micros', 'i64'],
      ['charged_micros', 'i64'],
      ['budget_bound', 'bool'],
      ['topics', 'text'],
    ],
  },
  creatives: {
    name: 'creatives',
    columns: [
      ['creative_id', 'text'],
      ['campaign_id', 'dict'],
      ['effect', 'f64'],
    ],
  },
} as const satisfies Record<string, TableSpec>;

export type TruthName = keyof typeof TRUTH_TABLES;
