CREATE TABLE {probe} (day Date, id UInt64)
ENGINE = MergeTree PARTITION BY day ORDER BY id SETTINGS non_replicated_deduplication_window = {window};
CREATE TABLE {probe}_target (day Date, id UInt64)
ENGINE = MergeTree PARTITION BY day ORDER BY id SETTINGS non_replicated_deduplication_window = {window};
CREATE MATERIALIZED VIEW {probe}_view TO {probe}_target AS SELECT day, id FROM {probe};
