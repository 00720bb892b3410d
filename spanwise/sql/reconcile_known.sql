-- Which of these traces have been summarised before, when they happened and where their summary lies.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    toUnixTimestamp64Nano(min(start_time)) AS low,
    max(toUnixTimestamp64Nano(start_time) + toInt64(least(duration_ns, 4000000000000000000))) AS high,
    max(version) AS version,
    toInt32(toUInt16(min(day))) AS day
FROM traces
WHERE tenant IN ({tenants:Array(String)}) AND trace_id IN ({traces})
GROUP BY tenant, trace_id
