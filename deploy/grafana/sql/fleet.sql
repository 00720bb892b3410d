-- traces
SELECT count() AS traces
FROM traces FINAL
WHERE {traces}

-- traces_with_findings
SELECT if(count() = 0, NULL, countIf(finding_severity IN ('warning', 'high', 'critical')) / count()) AS share
FROM traces FINAL
WHERE {traces}

-- cost
SELECT if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS cost
FROM {usage}
WHERE {rollup}

-- tokens
SELECT sum(input_tokens) + sum(output_tokens) AS tokens
FROM {usage}
WHERE {rollup}

-- model_errors
SELECT if(sum(calls) = 0, NULL, sum(errors) / sum(calls)) AS share
FROM {usage}
WHERE {rollup} AND kind = 'llm'

-- tool_success
SELECT if(sum(calls) = 0, NULL, 1 - sum(tool_errors) / sum(calls)) AS share
FROM {usage}
WHERE {rollup_any_model} AND kind = 'tool'

-- calls_by_kind
SELECT $__timeInterval(minute) AS time, toString(kind) AS kind_of_call, sum(calls) AS Value
FROM {usage}
WHERE {rollup} AND kind != ''
GROUP BY time, kind_of_call
ORDER BY time, kind_of_call

-- errors_by_kind
SELECT $__timeInterval(minute) AS time, toString(kind) AS kind_of_call, sum(errors) AS Value
FROM {usage}
WHERE {rollup} AND kind != ''
GROUP BY time, kind_of_call
HAVING Value > 0
ORDER BY time, kind_of_call

-- cost_by_service
{top(service)}

-- model_latency
SELECT
    $__timeInterval(minute) AS time,
    toNullable({quantile(0.5)}) AS p50,
    toNullable({quantile(0.95)}) AS p95,
    toNullable({quantile(0.99)}) AS p99
FROM rollup
WHERE {rollup} AND kind = 'llm' AND calls > 0
GROUP BY time
ORDER BY time {fill}

-- findings_by_severity
SELECT $__timeInterval(minute) AS time, toString(severity) AS level, sum(findings) AS Value
FROM rollup_findings
WHERE {findings}
GROUP BY time, level
ORDER BY time, level

-- agents
SELECT
    service_label AS Service,
    agent_label AS Agent,
    runs AS Runs,
    model_calls AS `Model calls`,
    tool_calls AS `Tool calls`,
    error_share AS Failed,
    tool_success AS `Tool success`,
    mean_run AS `Mean run`,
    tokens AS Tokens,
    cost AS Cost,
    if(runs = 0, NULL, cost / runs) AS `Cost per run`,
    ifNull(found.count, 0) AS Findings
FROM
(
    SELECT
        {service} AS service_label,
        {agent} AS agent_label,
        sumIf(calls, kind = 'agent') AS runs,
        sumIf(calls, kind = 'llm') AS model_calls,
        sumIf(calls, kind = 'tool') AS tool_calls,
        if(sum(calls) = 0, NULL, sum(errors) / sum(calls)) AS error_share,
        if(tool_calls = 0, NULL, 1 - sum(tool_errors) / tool_calls) AS tool_success,
        if(runs = 0, NULL, sumIf(duration_ns, kind = 'agent') / runs) AS mean_run,
        sum(input_tokens) + sum(output_tokens) AS tokens,
        if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS cost
    FROM rollup_agents
    WHERE {work}
    GROUP BY service_label, agent_label
) AS worked
LEFT JOIN
(
    SELECT {service} AS service_label, {agent} AS agent_label, toNullable(sum(findings)) AS count
    FROM rollup_findings
    WHERE {findings} AND severity != 'info'
    GROUP BY service_label, agent_label
) AS found USING (service_label, agent_label)
ORDER BY Cost DESC NULLS LAST, Tokens DESC, Service, Agent
LIMIT 100

-- handoffs
SELECT
    {service} AS Service,
    caller AS `From`,
    {agent} AS `To`,
    sum(rollup_agents.calls) AS Runs,
    if(Runs = 0, NULL, sum(errors) / Runs) AS Failed,
    if(Runs = 0, NULL, sum(rollup_agents.duration_ns) / Runs) AS Mean
FROM rollup_agents
WHERE {work_any_model} AND kind = 'agent' AND caller != '' AND caller != agent_name
GROUP BY Service, `From`, `To`
ORDER BY Runs DESC, Service, `From`, `To`
LIMIT 50

-- models
SELECT
    provider AS Provider,
    {model} AS Model,
    sum(rollup.calls) AS Calls,
    if(Calls = 0, NULL, sum(errors) / Calls) AS Failed,
    if(Calls = 0, NULL, {quantile(0.95)}) AS p95,
    sum(input_tokens) + sum(output_tokens) AS Tokens,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost
FROM rollup
WHERE {rollup} AND kind IN ('llm', 'embedding')
GROUP BY Provider, Model
ORDER BY Cost DESC NULLS LAST, Calls DESC, Model
LIMIT 50

-- tools
SELECT
    tool_name AS Tool,
    sum(rollup.calls) AS Calls,
    if(Calls = 0, NULL, 1 - sum(tool_errors) / Calls) AS Success,
    if(Calls = 0, NULL, {quantile(0.5)}) AS p50,
    if(Calls = 0, NULL, {quantile(0.95)}) AS p95
FROM rollup
WHERE {rollup_any_model} AND kind = 'tool' AND tool_name != ''
GROUP BY Tool
ORDER BY Calls DESC, Tool
LIMIT 50

-- signatures
SELECT
    signature AS Signature,
    kind AS Kind,
    severity AS Severity,
    sum(rollup_findings.findings) AS Findings,
    toFloat64(sum(wasted_cost_usd)) AS Wasted,
    max(minute) AS Last
FROM rollup_findings
WHERE {findings}
GROUP BY Signature, Kind, Severity
ORDER BY indexOf(['critical', 'high', 'warning', 'info'], Severity), Findings DESC, Signature, Kind
LIMIT 50
