(
    SELECT
        tenant, minute, service, agent_name, kind, provider, model, tool_name, calls, errors, tool_errors, input_tokens,
        output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_usd, unpriced_calls
    FROM rollup
    WHERE $__conditionalAll(1 = 0, $agent)
    UNION ALL
    SELECT
        tenant, minute, service, agent_name, kind, provider, model, tool_name, calls, errors, tool_errors, input_tokens,
        output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_usd, unpriced_calls
    FROM rollup_agents
    WHERE NOT ($__conditionalAll(1 = 0, $agent)) AND start_time BETWEEN $__fromTime - toIntervalDay(7) AND $__toTime
) AS usage
