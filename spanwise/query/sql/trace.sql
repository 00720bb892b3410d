SELECT * REPLACE (
    replaceOne(toString(start_time), ' ', 'T') || 'Z' AS start_time,
    replaceOne(toString(received_at), ' ', 'T') || 'Z' AS received_at
)
FROM traces FINAL
WHERE trace_id = {trace_id:String}
LIMIT 1
