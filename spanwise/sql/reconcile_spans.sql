-- What decisions read of some traces, one span more than may be decided of each at the most. Spans without a possible time lie outside every range of times.
SELECT {columns}
FROM spans FINAL
WHERE tenant IN ({tenants:Array(String)})
  AND trace_id IN ({traces})
  AND (
    start_time BETWEEN fromUnixTimestamp64Nano({low:Int64}) AND fromUnixTimestamp64Nano({high:Int64})
    OR start_time < fromUnixTimestamp64Nano({ancient:Int64})
    OR start_time > fromUnixTimestamp64Nano({future:Int64})
  )
LIMIT {most:UInt64} BY tenant, trace_id
