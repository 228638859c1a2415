-- What several gateways on one store tell each other about their money.

-- Per ledger and campaign what it has committed: the newest row counts. All that a ledger had committed at the latest as_of of
-- its rows is told; one without a campaign says so when nothing changed.
CREATE TABLE IF NOT EXISTS ledger_balances (
  tenant_id LowCardinality(String),
  ledger_id String,
  campaign_id String,
  version UInt64,
  committed_micros Int64,
  day Int32,
  day_micros Int64,
  as_of DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant_id, ledger_id, campaign_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- References that a live ledger has charged or given back, in the order in which the store learned of it.
CREATE TABLE IF NOT EXISTS ledger_settled (
  tenant_id LowCardinality(String),
  inserted_at DateTime64(3, 'UTC'),
  event_id String,
  ledger_id String,
  type LowCardinality(String),
  campaign_id String,
  reference_id String
) ENGINE = MergeTree
ORDER BY (tenant_id, inserted_at, event_id)
TTL toDateTime(inserted_at) + INTERVAL 8 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS ledger_settled_view TO ledger_settled AS
SELECT tenant_id, now64(3, 'UTC') AS inserted_at, event_id, extract(event_id, '^wl_([0-9a-f]{12})_') AS ledger_id,
  type, campaign_id, reference_id
FROM ledger_entries
WHERE type IN ('ledger.charge', 'ledger.release') AND match(event_id, '^wl_[0-9a-f]{12}_');
