-- Publications that the simulator invented, as ingest found them named by a world's manifest.

CREATE TABLE IF NOT EXISTS simulated_publications (
  tenant_id LowCardinality(String),
  publication_id String
) ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, publication_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Those loaded before this table existed: of the 80 random bits of a ULID the simulator leaves the first 16 and the last 32 at zero.
INSERT INTO simulated_publications SELECT DISTINCT tenant_id, publication_id FROM publications
WHERE match(publication_id, '^pub_[0-9A-HJKMNP-TV-Z]{10}000[0-9A-F][0-9A-HJKMNP-TV-Z]{5}[048CGMRW]000000$');
