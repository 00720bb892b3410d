-- `work` of a trace that is not decided as a whole: by the agent a span names itself, the newest minutes.
WITH
    spans.usage_scope = 'own' AS own,
    spans.usage_scope != 'aggregate' OR spans.kind NOT IN ('llm', 'embedding') AS is_call,
    spans.status = 'error' OR spans.error_type != '' AS failed,
    (tokens) -> least(ifNull(tokens, 0), 1099511627776) AS sane
SELECT
    toDateTime(least(greatest(toUnixTimestamp64Second(spans.start_time), 0), 4294967295) DIV 60 * 60, 'UTC') AS minute,
    toString(spans.service) AS service,
    toString(spans.agent_name) AS agent_name,
    if(spans.agent_name = '', '', toString(spans.agent_version)) AS agent_version,
    '' AS caller,
    toString(spans.kind) AS kind,
    toString(spans.provider) AS provider,
    toString(if(spans.response_model != '', spans.response_model, spans.request_model)) AS model,
    toString(spans.tool_name) AS tool_name,
    toUInt32(countIf(is_call)) AS calls,
    toUInt32(countIf(is_call AND failed)) AS errors,
    toUInt32(
        countIf(spans.kind = 'tool' AND if(spans.tool_status != '', spans.tool_status = 'error', failed))
    ) AS tool_errors,
    sumIf(sane(spans.input_tokens), own) AS input_tokens,
    sumIf(sane(spans.output_tokens), own) AS output_tokens,
    sumIf(sane(spans.cache_read_tokens), own) AS cache_read_tokens,
    sumIf(sane(spans.cache_write_tokens), own) AS cache_write_tokens,
    sumIf(sane(spans.reasoning_tokens), own) AS reasoning_tokens,
    toDecimal64(sumIf(ifNull(spans.cost_usd, 0), own), 9) AS cost_usd,
    toUInt32(
        countIf(own AND spans.cost_usd IS NULL AND (spans.input_tokens IS NOT NULL OR spans.output_tokens IS NOT NULL))
    ) AS unpriced_calls,
    toUInt64(sumIf(least(spans.duration_ns, 31622400000000000), is_call)) AS duration_ns
FROM spans FINAL
WHERE tenant = {tenant:String}
  AND trace_id = {trace:String}
  AND (own OR spans.kind != '')
  AND (
    spans.start_time BETWEEN fromUnixTimestamp64Nano({low:Int64}) AND fromUnixTimestamp64Nano({high:Int64})
    OR spans.start_time < fromUnixTimestamp64Nano({ancient:Int64})
    OR spans.start_time > fromUnixTimestamp64Nano({future:Int64})
  )
GROUP BY minute, service, agent_name, agent_version, kind, provider, model, tool_name
ORDER BY minute DESC, service, agent_name, agent_version, kind, provider, model, tool_name
LIMIT {most:UInt64}
