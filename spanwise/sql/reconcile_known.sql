-- Which of these traces have been summarised before, when they happened, where their summary lies and how many spans it counts.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    toUnixTimestamp64Nano(min(start_time)) AS low,
    max(toUnixTimestamp64Nano(start_time) + toInt64(least(duration_ns, 4000000000000000000))) AS high,
    max(traces.version) AS version,
    toInt32(toUInt16(min(day))) AS day,
    argMax(span_count, traces.version) AS spans
FROM traces
WHERE tenant IN ({tenants:Array(String)}) AND trace_id IN ({traces})
GROUP BY tenant, trace_id
