-- The summaries that reconciliation would have written.
INSERT INTO traces (
    tenant, trace_id, start_time, duration_ns, root_span_id, root_name, services, agents, models, tools, conversation_id,
    span_count, llm_calls, tool_calls, error_count, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, cost_usd, unpriced_calls, findings, finding_severity, day, received_at, version)
SELECT
    tenant,
    trace_id,
    min(spans.start_time) AS began,
    toUInt64(max(toUnixTimestamp64Nano(spans.start_time) + duration_ns) - toUnixTimestamp64Nano(began)),
    argMin(span_id, spans.start_time),
    argMin(name, spans.start_time),
    groupUniqArray(service),
    groupUniqArrayIf(agent_name, agent_name != ''),
    groupUniqArrayIf(response_model, response_model != ''),
    groupUniqArrayIf(tool_name, tool_name != ''),
    any(conversation_id),
    count(),
    countIf(kind = 'llm'),
    countIf(kind = 'tool'),
    countIf(status = 'error') AS failed,
    sum(ifNull(input_tokens, 0)),
    sum(ifNull(output_tokens, 0)),
    sum(ifNull(cache_read_tokens, 0)),
    sum(ifNull(cache_write_tokens, 0)),
    sum(ifNull(reasoning_tokens, 0)),
    sum(ifNull(cost_usd, toDecimal64(0, 9))),
    countIf(cost_source = 'unknown_model'),
    if(failed > 0, ['tool_error.ignored'], []),
    if(failed > 0, if(failed > 1, 'high', 'warning'), ''),
    toDate(began),
    max(received_at),
    1
FROM spans
GROUP BY tenant, trace_id
