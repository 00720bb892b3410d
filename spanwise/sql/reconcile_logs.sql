-- Log records of some traces, and records without a trace by their conversation or response.
SELECT {columns}
FROM log_events FINAL
WHERE tenant IN ({tenants:Array(String)})
  AND time BETWEEN fromUnixTimestamp64Nano({low:Int64}) AND fromUnixTimestamp64Nano({high:Int64})
  AND (
    trace_id IN ({traces})
    OR (
      trace_id = ''
      AND (conversation_id IN ({conversations:Array(String)}) OR response_id IN ({responses:Array(String)}))
    )
  )
