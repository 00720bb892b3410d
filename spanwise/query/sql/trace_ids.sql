SELECT DISTINCT trace_id
FROM traces
WHERE ({tenant:String} = '' OR tenant = {tenant:String})
  AND startsWith(trace_id, {prefix:String})
ORDER BY trace_id
LIMIT 10
