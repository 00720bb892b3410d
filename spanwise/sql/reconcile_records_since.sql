-- Log records without a trace received at a time or later, by what may tell their trace; the newest first.
SELECT
    toString(tenant) AS tenant,
    conversation_id AS conversation,
    response_id AS response,
    toUnixTimestamp64Nano(time) AS at_ns,
    toUnixTimestamp64Milli(received_at) AS received_ms
FROM log_events
WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})
  AND trace_id = ''
  AND (conversation_id != '' OR response_id != '')
ORDER BY received_ms DESC
LIMIT {most:UInt64}
