SELECT
    count() AS spans,
    uniqExact(trace_id) AS traces,
    uniqExact(service) AS services,
    countIf(kind = 'llm' AND usage_scope = 'own') AS model_calls,
    countIf(kind = 'tool') AS tool_calls,
    toUInt64(sumIf(ifNull(input_tokens, 0), usage_scope = 'own')) AS input_tokens,
    toUInt64(sumIf(ifNull(output_tokens, 0), usage_scope = 'own')) AS output_tokens,
    toFloat64(sumIf(ifNull(cost_usd, 0), usage_scope = 'own')) AS cost_usd
FROM spans FINAL
WHERE received_at >= {since:DateTime64(3)}
