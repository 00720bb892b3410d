SELECT DISTINCT trace_id
FROM traces
WHERE startsWith(trace_id, {prefix:String})
ORDER BY trace_id
LIMIT 10
