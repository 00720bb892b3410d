SELECT * REPLACE (
    replaceOne(toString(start_time), ' ', 'T') || 'Z' AS start_time,
    replaceOne(toString(received_at), ' ', 'T') || 'Z' AS received_at
)
FROM traces FINAL
WHERE ({tenant:String} = '' OR tenant = {tenant:String})
  AND trace_id = {trace_id:String}
ORDER BY traces.start_time DESC, tenant
LIMIT 1
