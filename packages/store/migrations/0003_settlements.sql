-- What placements were charged in the end, as their network tells it.

CREATE TABLE IF NOT EXISTS settlements (
  tenant_id LowCardinality(String),
  event_id String,
  type LowCardinality(String),
  ts DateTime64(3, 'UTC'),
  placement_id String,
  campaign_id String,
  charged_micros Int64,
  decision_id String
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, type, toDate(ts), event_id)
SETTINGS non_replicated_deduplication_window = 10000;
