-- A finding in every trace with a failed span.
INSERT INTO findings (
    tenant, trace_id, finding_id, signature, kind, severity, basis, service, agent_name, agent_version, tool_name, model,
    conversation_id, first_span_id, last_span_id, span_ids, count, wasted_tokens, wasted_cost_usd, evidence, rule_version,
    started_at, detected_at, day, received_at, version, withdrawn)
SELECT
    tenant,
    trace_id,
    lower(hex(sipHash128(trace_id))),
    ['retry_loop', 'tool_error', 'context_limit', 'goal_drift'][(cityHash64(trace_id) % 4) + 1] AS found,
    if(found = 'tool_error', 'ignored', ''),
    ['info', 'warning', 'warning', 'high', 'critical'][(cityHash64(trace_id, 1) % 5) + 1],
    if(found = 'goal_drift', 'proxy', 'exact'),
    any(service),
    any(agent_name),
    any(agent_version),
    anyIf(tool_name, status = 'error'),
    anyIf(response_model, status = 'error'),
    any(conversation_id),
    anyIf(span_id, status = 'error'),
    anyLastIf(span_id, status = 'error'),
    groupArrayIf(span_id, status = 'error'),
    countIf(status = 'error'),
    sum(ifNull(input_tokens, 0)),
    sum(ifNull(cost_usd, toDecimal64(0, 9))),
    map('repetitions', toString(countIf(status = 'error')), 'error of ' || anyIf(span_id, status = 'error'), 'timeout after 30 s'),
    1,
    minIf(spans.start_time, status = 'error') AS began,
    toDateTime64(began, 3, 'UTC') + 1,
    toDate(began),
    max(received_at),
    1,
    0
FROM spans
WHERE trace_id IN (SELECT trace_id FROM spans WHERE status = 'error')
GROUP BY tenant, trace_id
