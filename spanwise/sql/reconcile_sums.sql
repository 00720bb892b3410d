-- What the store adds up of a trace that is not decided as a whole: columns of `traces`.
-- Spans without a possible time lie outside every range of times.
WITH
    spans.time_flag NOT IN ('', 'inverted') AS timeless,
    (timeless, spans.start_time, spans.span_id) AS place,
    spans.usage_scope = 'own' AS own,
    toString(if(spans.response_model != '', spans.response_model, spans.request_model)) AS model,
    toUnixTimestamp64Nano(spans.start_time) AS start_ns,
    if(timeless, start_ns, start_ns + toInt64(least(spans.duration_ns, 4000000000000000000))) AS end_ns,
    -- more tokens than anybody uses are nonsense, and must not make a sum overflow
    (tokens) -> least(ifNull(tokens, 0), 1099511627776) AS sane
SELECT
    argMin(spans.start_time, place) AS start_time,
    toUInt64(greatest(max(end_ns) - argMin(start_ns, place), 0)) AS duration_ns,
    argMinIf(spans.span_id, place, spans.parent_span_id = '') AS root_span_id,
    toString(if(countIf(spans.parent_span_id = '') > 0, argMinIf(spans.name, place, spans.parent_span_id = ''), argMin(spans.name, place))) AS root_name,
    arraySort(groupUniqArrayIf(1000)(toString(spans.service), spans.service != '')) AS services,
    arraySort(groupUniqArrayIf(1000)(toString(spans.agent_name), spans.agent_name != '')) AS agents,
    arraySort(groupUniqArrayIf(1000)(model, model != '')) AS models,
    arraySort(groupUniqArrayIf(1000)(toString(spans.tool_name), spans.tool_name != '')) AS tools,
    argMinIf(spans.conversation_id, place, spans.conversation_id != '') AS conversation_id,
    argMinIf(spans.user_id, place, spans.user_id != '') AS user_id,
    toString(argMinIf(spans.workflow_name, place, spans.workflow_name != '')) AS workflow_name,
    toUInt32(count()) AS span_count,
    toUInt32(countIf(spans.kind = 'llm' AND spans.usage_scope != 'aggregate')) AS llm_calls,
    toUInt32(countIf(spans.kind = 'tool')) AS tool_calls,
    toUInt32(countIf(spans.status = 'error' OR spans.error_type != '')) AS error_count,
    sumIf(sane(spans.input_tokens), own) AS input_tokens,
    sumIf(sane(spans.output_tokens), own) AS output_tokens,
    sumIf(sane(spans.cache_read_tokens), own) AS cache_read_tokens,
    sumIf(sane(spans.cache_write_tokens), own) AS cache_write_tokens,
    sumIf(sane(spans.reasoning_tokens), own) AS reasoning_tokens,
    toDecimal64(sumIf(ifNull(spans.cost_usd, 0), own), 9) AS cost_usd,
    toDecimal64(sumIf(ifNull(spans.reported_cost_usd, 0), own), 9) AS reported_cost_usd,
    toUInt32(
        countIf(own AND spans.cost_usd IS NULL AND (spans.input_tokens IS NOT NULL OR spans.output_tokens IS NOT NULL))
    ) AS unpriced_calls,
    if(min(timeless), toDate(max(spans.received_at)), toDate(argMin(spans.start_time, place))) AS day,
    max(spans.received_at) AS received_at
FROM spans FINAL
WHERE tenant = {tenant:String}
  AND trace_id = {trace:String}
  AND (
    spans.start_time BETWEEN fromUnixTimestamp64Nano({low:Int64}) AND fromUnixTimestamp64Nano({high:Int64})
    OR spans.start_time < fromUnixTimestamp64Nano({ancient:Int64})
    OR spans.start_time > fromUnixTimestamp64Nano({future:Int64})
  )
HAVING count() > 0
