-- Entities keep every version; reading takes the highest one. Events are deduplicated by id on read
-- (ReplacingMergeTree + FINAL or LIMIT 1 BY) and, for retried blocks, by insert token on write.

CREATE TABLE IF NOT EXISTS publishers (
  tenant_id LowCardinality(String),
  publisher_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  name String,
  status LowCardinality(String),
  fraud_tier LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, publisher_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS publications (
  tenant_id LowCardinality(String),
  publication_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  publisher_id String,
  name String,
  description String,
  language LowCardinality(String),
  tags Array(LowCardinality(String)),
  category LowCardinality(String),
  audience LowCardinality(String),
  country LowCardinality(String),
  timezone LowCardinality(String),
  cadence_per_week Float64,
  active_subscribers UInt32,
  allowed_categories Array(LowCardinality(String)),
  blocked_categories Array(LowCardinality(String)),
  blocked_advertisers Array(String),
  max_ads_per_send UInt8,
  min_payout_micros Int64,
  auto_accept Bool,
  status LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, publication_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS advertisers (
  tenant_id LowCardinality(String),
  advertiser_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  name String,
  domain String,
  category LowCardinality(String),
  competitor_group LowCardinality(String),
  status LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, advertiser_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS campaigns (
  tenant_id LowCardinality(String),
  campaign_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  advertiser_id String,
  name String,
  description String,
  category LowCardinality(String),
  goal LowCardinality(String),
  pricing LowCardinality(String),
  bid_micros Int64,
  budget_micros Int64,
  daily_budget_micros Int64,
  flight_start DateTime64(3, 'UTC'),
  flight_end DateTime64(3, 'UTC'),
  target_languages Array(LowCardinality(String)),
  target_categories Array(LowCardinality(String)),
  guaranteed_units UInt32,
  status LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, campaign_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS creatives (
  tenant_id LowCardinality(String),
  creative_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  campaign_id String,
  kind LowCardinality(String),
  headline String,
  body String,
  landing_url String,
  status LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, creative_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS posts (
  tenant_id LowCardinality(String),
  post_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  publication_id String,
  title String,
  planned_at DateTime64(3, 'UTC'),
  status LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, post_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS slots (
  tenant_id LowCardinality(String),
  slot_id String,
  version UInt64,
  updated_at DateTime64(3, 'UTC'),
  created_at DateTime64(3, 'UTC'),
  post_id String,
  publication_id String,
  kind LowCardinality(String),
  position UInt8,
  mode LowCardinality(String),
  floor_micros Int64
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, slot_id, version)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS sends (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  post_id String,
  publication_id String,
  recipients UInt32,
  delivered UInt32,
  unsubscribes UInt32,
  n_slots UInt8,
  n_ads UInt8
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS offers (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  offer_id String,
  publication_id String,
  campaign_id String,
  creative_id String,
  post_id String,
  slot_id String,
  pricing LowCardinality(String),
  price_micros Int64,
  est_payout_micros Int64,
  menu_size UInt16,
  rank UInt16,
  propensity Float64,
  decision_id String,
  reason LowCardinality(String),
  expires_at DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS placements (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  placement_id String,
  offer_id String,
  publication_id String,
  campaign_id String,
  creative_id String,
  recommended_creative_id String,
  post_id String,
  slot_id String,
  position UInt8,
  n_ads UInt8,
  mode LowCardinality(String),
  pricing LowCardinality(String),
  price_micros Int64,
  reserved_micros Int64,
  delivered UInt32,
  decision_id String
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS opens (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  post_id String,
  publication_id String,
  human_opens UInt32,
  mpp_opens UInt32,
  proxy_opens UInt32
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS clicks (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  placement_id String,
  post_id String,
  publication_id String,
  campaign_id String,
  creative_id String,
  subscriber_key String,
  device LowCardinality(String),
  ua_class LowCardinality(String),
  ip_prefix LowCardinality(String),
  ms_since_delivery UInt64,
  links_within_10s UInt8,
  honeypot Bool
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS conversions (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  click_id String,
  campaign_id String,
  publication_id String,
  kind LowCardinality(String),
  value_micros Int64,
  source LowCardinality(String)
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS ledger_entries (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  campaign_id String,
  reference_id String,
  amount_micros Int64,
  decision_id String
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS decisions (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  decision_id String,
  request_id String,
  publication_id String,
  post_id String,
  release_id LowCardinality(String),
  seed UInt32,
  request String,
  items String,
  filtered String,
  degraded Array(LowCardinality(String)),
  latency_us UInt32,
  test Bool
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Vectors are rows like any other: content writes them, features and releases read them.
CREATE TABLE IF NOT EXISTS embeddings (
  tenant_id LowCardinality(String),
  entity_kind LowCardinality(String),
  entity_id String,
  model LowCardinality(String),
  text_sha256 FixedString(64),
  vector Array(Float32),
  updated_at DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (tenant_id, model, entity_kind, entity_id)
SETTINGS non_replicated_deduplication_window = 10000;
