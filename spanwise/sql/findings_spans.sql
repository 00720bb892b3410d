-- What findings say about their spans, and the ancestors of these, which may name the agent; text of the former only.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    span_id,
    parent_span_id,
    toString(service) AS service,
    toString(agent_name) AS agent_name,
    toString(agent_version) AS agent_version,
    toString(tool_name) AS tool_name,
    toString(if(response_model != '', response_model, request_model)) AS model,
    conversation_id,
    toString(usage_scope) AS usage_scope,
    input_tokens,
    output_tokens,
    cost_usd,
    day,
    received_at,
    if(span_id IN ({parts:Array(String)}), input_preview, '') AS input_preview,
    if(span_id IN ({parts:Array(String)}), output_preview, '') AS output_preview,
    if(status_message != '', substringUTF8(status_message, 1, 200), output_preview) AS error_text
FROM spans FINAL
WHERE tenant IN ({tenants:Array(String)})
  AND trace_id IN ({traces:Array(String)})
  AND start_time >= fromUnixTimestamp64Nano({low:Int64})
