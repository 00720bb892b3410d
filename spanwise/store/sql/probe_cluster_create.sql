CREATE TABLE IF NOT EXISTS {probe}
(
    day Date,
    id UInt64,
    once UUID DEFAULT generateUUIDv4()
)
ENGINE = ReplacingMergeTree()
PARTITION BY day
ORDER BY (id, once)
SETTINGS non_replicated_deduplication_window = {window};
