-- Traces with rows received at a time or later, the earliest first.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    toUnixTimestamp64Milli(min(received_at)) AS received,
    toUnixTimestamp64Nano(min(start_time)) AS low,
    toUnixTimestamp64Nano(max(start_time)) AS high
FROM spans
WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})
GROUP BY tenant, trace_id
ORDER BY received
LIMIT {most:UInt64} WITH TIES
