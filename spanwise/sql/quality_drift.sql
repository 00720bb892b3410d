-- Rates of the last while beside those before it, for each agent version and model. The version is left out of what is
-- compared with, so that a new version is held against the old one.
WITH
    calls AS
    (
        SELECT
            toString(tenant) AS tenant,
            toString(service) AS service,
            toString(agent_name) AS agent_name,
            toString(agent_version) AS agent_version,
            toString(if(kind = 'tool', '', if(response_model != '', response_model, request_model))) AS model,
            start_time >= fromUnixTimestamp64Milli({recent_ms:Int64}) AS is_recent,
            (status = 'error' OR error_type != '' OR tool_status = 'error') AS failed,
            kind = 'tool' AS is_tool,
            has(finish_reasons, 'length') AS truncated,
            has(finish_reasons, 'content_filter') AS refused
        FROM spans FINAL
        WHERE start_time >= fromUnixTimestamp64Milli({baseline_ms:Int64})
          AND start_time < fromUnixTimestamp64Milli({now_ms:Int64})
          AND (kind = 'tool' OR (kind = 'llm' AND usage_scope != 'aggregate'))
    ),
    rates AS
    (
        SELECT
            tenant, service, agent_name, agent_version, model, is_recent, rate.1 AS metric, sum(rate.2) AS total, sum(rate.3) AS bad
        FROM calls
        ARRAY JOIN if(
            is_tool,
            [('tool_error_rate', 1, toUInt64(failed))],
            [
                ('error_rate', 1, toUInt64(failed)),
                ('truncation_rate', 1, toUInt64(truncated)),
                ('refusal_rate', 1, toUInt64(refused))
            ]
        ) AS rate
        GROUP BY ALL
    ),
    before AS
    (
        SELECT tenant, service, agent_name, model, metric, sum(total) AS base_total, sum(bad) AS base_bad
        FROM rates
        WHERE NOT is_recent
        GROUP BY ALL
    )
SELECT
    tenant, service, agent_name, agent_version, model, metric, total, bad, base_total, base_bad,
    bad / total AS rate,
    base_bad / base_total AS base_rate,
    (bad + base_bad) / (total + base_total) AS pooled,
    (rate - base_rate) / sqrt(pooled * (1 - pooled) * (1 / total + 1 / base_total)) AS z
FROM rates
INNER JOIN before USING (tenant, service, agent_name, model, metric)
WHERE is_recent
  AND total >= {samples_min:UInt64}
  AND base_total >= {samples_min:UInt64}
  AND pooled > 0
  AND pooled < 1
  AND z >= {z_min:Float64}
  AND rate - base_rate >= {change_min:Float64}
ORDER BY tenant, service, agent_name, agent_version, model, metric
