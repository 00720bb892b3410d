-- latest
SELECT
    start_time AS Began,
    trace_id AS Trace,
    root_name AS Root,
    arrayStringConcat(agents, ', ') AS Agents,
    duration_ns AS Duration,
    error_count AS Errors,
    if(cost_usd = 0 AND unpriced_calls > 0, NULL, toFloat64(cost_usd)) AS Cost,
    arrayStringConcat(findings, ', ') AS Findings
FROM traces FINAL
WHERE $__timeFilter(start_time)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
ORDER BY traces.start_time DESC, Trace
LIMIT 20

-- cost
SELECT if(cost_usd = 0 AND unpriced_calls > 0, NULL, toFloat64(cost_usd)) AS cost
FROM traces FINAL
WHERE {one_trace}

-- duration
SELECT duration_ns
FROM traces FINAL
WHERE {one_trace}

-- model_calls
SELECT llm_calls
FROM traces FINAL
WHERE {one_trace}

-- tool_calls
SELECT traces.tool_calls
FROM traces FINAL
WHERE {one_trace}

-- tokens
SELECT traces.input_tokens + traces.output_tokens AS tokens
FROM traces FINAL
WHERE {one_trace}

-- errors
SELECT error_count
FROM traces FINAL
WHERE {one_trace}

-- about
SELECT
    start_time AS Began,
    root_name AS Root,
    arrayStringConcat(services, ', ') AS Services,
    arrayStringConcat(agents, ', ') AS Agents,
    arrayStringConcat(models, ', ') AS Models,
    arrayStringConcat(tools, ', ') AS Tools,
    conversation_id AS Conversation,
    span_count AS Spans
FROM traces FINAL
WHERE {one_trace}

-- found
SELECT
    severity AS Severity,
    if(kind = '', toString(signature), concat(signature, '.', kind)) AS Finding,
    basis AS Basis,
    {agent} AS Agent,
    if(tool_name = '', toString(model), toString(tool_name)) AS `Tool or model`,
    count AS Times,
    wasted_tokens AS `Wasted tokens`,
    toFloat64(wasted_cost_usd) AS Wasted,
    arrayStringConcat(span_ids, ' ') AS Spans,
    arrayStringConcat(arrayMap((part, value) -> concat(part, ': ', value), mapKeys(evidence), mapValues(evidence)), '\n') AS Evidence
FROM findings FINAL
WHERE {one_trace}
ORDER BY indexOf(['critical', 'high', 'warning', 'info'], severity), started_at, finding_id
LIMIT 100

-- spans
SELECT
    trace_id AS traceID,
    span_id AS spanID,
    parent_span_id AS parentSpanID,
    service AS serviceName,
    name AS operationName,
    start_time AS startTime,
    duration_ns / 1000000 AS duration,
    arrayMap(key -> map('key', key, 'value', attributes[key]), mapKeys(attributes)) AS tags,
    arrayMap(key -> map('key', key, 'value', resource_attributes[key]), mapKeys(resource_attributes)) AS serviceTags,
    if(status = 'error' OR error_type != '', 2, 0) AS statusCode,
    status_message AS statusMessage
FROM spans FINAL
WHERE {one_trace}
    -- spans are ordered by time: the summary of the trace says where to look
    AND start_time >= (SELECT min(start_time) FROM traces FINAL WHERE {one_trace})
    AND start_time <= (SELECT max(start_time + toIntervalNanosecond(duration_ns)) FROM traces FINAL WHERE {one_trace})
ORDER BY start_time, span_id
LIMIT 2000

-- steps
SELECT
    start_time AS Began,
    kind AS Kind,
    multiIf(tool_name != '', toString(tool_name), response_model != '', toString(response_model), request_model != '', toString(request_model), agent_name != '', toString(agent_name), toString(name)) AS What,
    duration_ns AS Duration,
    if(status = 'error' OR error_type != '' OR tool_status = 'error', if(error_type = '', 'error', toString(error_type)), '') AS Error,
    spans.input_tokens AS Input,
    spans.output_tokens AS Output,
    toFloat64(spans.cost_usd) AS Cost,
    usage_scope AS Usage,
    input_preview AS `Went in`,
    output_preview AS `Came out`,
    span_id AS Span
FROM spans FINAL
WHERE {one_trace}
    -- spans are ordered by time: the summary of the trace says where to look
    AND start_time >= (SELECT min(start_time) FROM traces FINAL WHERE {one_trace})
    AND start_time <= (SELECT max(start_time + toIntervalNanosecond(duration_ns)) FROM traces FINAL WHERE {one_trace})
    AND kind != ''
ORDER BY start_time, span_id
LIMIT 500
