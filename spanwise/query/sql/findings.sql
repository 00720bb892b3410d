SELECT * EXCEPT (version, withdrawn) REPLACE (
    replaceOne(toString(started_at), ' ', 'T') || 'Z' AS started_at,
    replaceOne(toString(detected_at), ' ', 'T') || 'Z' AS detected_at,
    replaceOne(toString(received_at), ' ', 'T') || 'Z' AS received_at
)
FROM findings FINAL
WHERE ({tenant:String} = '' OR tenant = {tenant:String})
  AND ({since_s:Float64} = 0 OR findings.detected_at >= toDateTime64({since_s:Float64}, 3, 'UTC'))
  AND ({trace_id:String} = '' OR startsWith(trace_id, {trace_id:String}))
  AND ({signature:String} = '' OR signature = {signature:String})
  AND ({service:String} = '' OR service = {service:String})
  AND ({agent:String} = '' OR agent_name = {agent:String})
  AND ({model:String} = '' OR model = {model:String})
  AND ({tool:String} = '' OR tool_name = {tool:String})
  AND indexOf(['info', 'warning', 'high', 'critical'], severity)
      >= indexOf(['info', 'warning', 'high', 'critical'], {severity:String})
ORDER BY findings.detected_at DESC, finding_id
LIMIT {limit:UInt32}
