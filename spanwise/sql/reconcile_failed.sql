-- Traces that were set aside because they could not be decided, those first whose last attempt is longest ago.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    toUnixTimestamp64Milli(max(received_at)) AS received,
    toUnixTimestamp64Nano(min(start_time)) AS low,
    max(toUnixTimestamp64Nano(start_time) + toInt64(least(duration_ns, 4000000000000000000))) AS high,
    toUInt64(argMax(span_count, version)) AS rows
FROM traces
WHERE (tenant, trace_id) IN (SELECT tenant, trace_id FROM traces WHERE partial = 'failed')
GROUP BY tenant, trace_id
HAVING argMax(partial, version) = 'failed'
ORDER BY max(version)
LIMIT {most:UInt64}
