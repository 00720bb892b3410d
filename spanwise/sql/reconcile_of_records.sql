-- Traces that records without a trace may belong to.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    toUnixTimestamp64Milli(min(received_at)) AS received,
    toUnixTimestamp64Nano(min(start_time)) AS low,
    toUnixTimestamp64Nano(max(start_time)) AS high,
    count() AS rows
FROM spans
WHERE tenant IN ({tenants:Array(String)})
  AND start_time BETWEEN fromUnixTimestamp64Nano({low:Int64}) AND fromUnixTimestamp64Nano({high:Int64})
  AND (conversation_id IN ({conversations:Array(String)}) OR response_id IN ({responses:Array(String)}))
GROUP BY tenant, trace_id
LIMIT {most:UInt64}
