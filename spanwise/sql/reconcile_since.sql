-- Traces with spans or log records received at a time or later, the earliest first.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    toUnixTimestamp64Milli(min(received_at)) AS received,
    toUnixTimestamp64Nano(min(at)) AS low,
    toUnixTimestamp64Nano(max(at)) AS high,
    count() AS rows
FROM
(
    SELECT tenant, trace_id, received_at, start_time AS at FROM spans
    WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})
    UNION ALL
    SELECT tenant, trace_id, received_at, time AS at FROM log_events
    WHERE received_at >= fromUnixTimestamp64Milli({since:Int64}) AND trace_id != ''
)
GROUP BY tenant, trace_id
ORDER BY received
LIMIT {most:UInt64} WITH TIES
