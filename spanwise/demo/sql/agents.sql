WITH
    calls AS
    (
        SELECT
            trace_id,
            parent_span_id,
            ifNull(input_tokens, 0) AS input,
            ifNull(output_tokens, 0) AS output,
            toFloat64(ifNull(cost_usd, 0)) AS cost
        FROM spans FINAL
        WHERE usage_scope = 'own' AND received_at >= {since:DateTime64(3)}
    ),
    agents AS
    (
        SELECT trace_id, span_id, service, agent_name
        FROM spans FINAL
        WHERE kind = 'agent' AND received_at >= {since:DateTime64(3)}
    )
SELECT
    service,
    agent_name AS agent,
    count() AS calls,
    toUInt64(sum(input)) AS input_tokens,
    toUInt64(sum(output)) AS output_tokens,
    sum(cost) AS cost_usd
FROM calls
INNER JOIN agents ON agents.trace_id = calls.trace_id AND agents.span_id = calls.parent_span_id
GROUP BY service, agent
ORDER BY cost_usd DESC
