-- Whole rows of the spans that change.
SELECT {columns}
FROM spans FINAL
WHERE tenant IN ({tenants:Array(String)})
  AND trace_id IN ({traces})
  AND span_id IN ({spans})
  AND (
    start_time BETWEEN fromUnixTimestamp64Nano({low:Int64}) AND fromUnixTimestamp64Nano({high:Int64})
    OR start_time < fromUnixTimestamp64Nano({ancient:Int64})
    OR start_time > fromUnixTimestamp64Nano({future:Int64})
  )
