SELECT * REPLACE (
    replaceOne(toString(start_time), ' ', 'T') || 'Z' AS start_time,
    replaceOne(toString(received_at), ' ', 'T') || 'Z' AS received_at
)
FROM traces FINAL
WHERE ({tenant:String} = '' OR tenant = {tenant:String})
  AND ({since_s:Float64} = 0 OR traces.start_time >= toDateTime64({since_s:Float64}, 9, 'UTC'))
  AND ({before_s:Float64} = 0 OR traces.start_time < toDateTime64({before_s:Float64}, 9, 'UTC'))
  AND ({service:String} = '' OR has(services, {service:String}))
  AND ({agent:String} = '' OR has(agents, {agent:String}))
  AND ({model:String} = '' OR has(models, {model:String}))
  AND ({conversation:String} = '' OR conversation_id = {conversation:String})
  AND (NOT {errors:Bool} OR error_count > 0)
  AND ({cost_min_usd:Float64} = 0 OR cost_usd >= toDecimal64({cost_min_usd:Float64}, 9))
ORDER BY traces.start_time DESC, trace_id
LIMIT {limit:UInt32}
