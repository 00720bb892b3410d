-- Recent model calls, to find the same call in traces that arrive later.
SELECT {columns}
FROM spans FINAL
WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})
  AND kind IN ({kinds:Array(String)})
  AND (input_tokens IS NOT NULL OR output_tokens IS NOT NULL)
ORDER BY received_at DESC
LIMIT {most:UInt64}
