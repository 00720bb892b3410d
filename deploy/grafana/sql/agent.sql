-- runs
SELECT sum(calls) AS runs
FROM rollup
WHERE {one_agent} AND kind = 'agent'

-- failed_runs
SELECT if(sum(calls) = 0, NULL, sum(errors) / sum(calls)) AS share
FROM rollup
WHERE {one_agent} AND kind = 'agent'

-- p95_run
SELECT if(sum(calls) = 0, NULL, {quantile(0.95)}) AS duration
FROM rollup
WHERE {one_agent} AND kind = 'agent'

-- cost_per_run
SELECT if(sumIf(calls, kind = 'agent') = 0 OR (sum(cost_usd) = 0 AND sum(unpriced_calls) > 0), NULL, toFloat64(sum(cost_usd)) / sumIf(calls, kind = 'agent')) AS cost
FROM rollup_agents
WHERE {work_of_agent}

-- tokens_per_run
SELECT if(sumIf(calls, kind = 'agent') = 0, NULL, (sum(input_tokens) + sum(output_tokens)) / sumIf(calls, kind = 'agent')) AS tokens
FROM rollup_agents
WHERE {work_of_agent}

-- found
SELECT sum(findings) AS findings
FROM rollup_findings
WHERE {one_agent} AND severity != 'info'

-- runs_over_time
SELECT $__timeInterval(minute) AS time, sum(calls) - sum(errors) AS ok, sum(errors) AS failed
FROM rollup
WHERE {one_agent} AND kind = 'agent'
GROUP BY time
ORDER BY time

-- run_duration
SELECT
    $__timeInterval(minute) AS time,
    toNullable({quantile(0.5)}) AS p50,
    toNullable({quantile(0.95)}) AS p95,
    toNullable({quantile(0.99)}) AS p99
FROM rollup
WHERE {one_agent} AND kind = 'agent' AND calls > 0
GROUP BY time
ORDER BY time {fill}

-- cost_by_model
SELECT $__timeInterval(minute) AS time, {model} AS model_label, toFloat64(sum(cost_usd)) AS Value
FROM rollup_agents
WHERE {work_of_agent}
GROUP BY time, model_label
HAVING Value > 0
ORDER BY time, model_label

-- success
SELECT
    $__timeInterval(minute) AS time,
    1 - sumIf(errors, kind = 'llm') / nullIf(sumIf(calls, kind = 'llm'), 0) AS `model calls`,
    1 - sumIf(tool_errors, kind = 'tool') / nullIf(sumIf(calls, kind = 'tool'), 0) AS `tool calls`
FROM rollup_agents
WHERE {work_of_agent} AND kind IN ('llm', 'tool')
GROUP BY time
ORDER BY time {fill}

-- found_over_time
SELECT $__timeInterval(minute) AS time, toString(signature) AS found, sum(findings) AS Value
FROM rollup_findings
WHERE {one_agent}
GROUP BY time, found
ORDER BY time, found

-- calls_per_run
SELECT
    $__timeInterval(minute) AS time,
    sumIf(calls, kind = 'llm') / nullIf(sumIf(calls, kind = 'agent'), 0) AS `model calls`,
    sumIf(calls, kind = 'tool') / nullIf(sumIf(calls, kind = 'agent'), 0) AS `tool calls`
FROM rollup_agents
WHERE {work_of_agent} AND kind IN ('agent', 'llm', 'tool')
GROUP BY time
ORDER BY time {fill}

-- versions
SELECT
    version AS Version,
    first AS First,
    runs AS Runs,
    failed AS Failed,
    mean_run AS `Mean run`,
    tool_success AS `Tool success`,
    if(runs = 0, NULL, tokens / runs) AS `Tokens per run`,
    if(runs = 0, NULL, cost / runs) AS `Cost per run`,
    ifNull(found.count, 0) AS Findings,
    if(runs = 0, NULL, Findings / runs) AS `Findings per run`
FROM
(
    SELECT
        if(agent_version = '', '(none)', agent_version) AS version,
        min(minute) AS first,
        sumIf(calls, kind = 'agent') AS runs,
        if(runs = 0, NULL, sumIf(errors, kind = 'agent') / runs) AS failed,
        if(runs = 0, NULL, sumIf(duration_ns, kind = 'agent') / runs) AS mean_run,
        1 - sumIf(tool_errors, kind = 'tool') / nullIf(sumIf(calls, kind = 'tool'), 0) AS tool_success,
        sum(input_tokens) + sum(output_tokens) AS tokens,
        if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS cost
    FROM rollup_agents
    WHERE {work_of_agent}
    GROUP BY version
) AS worked
LEFT JOIN
(
    SELECT if(agent_version = '', '(none)', agent_version) AS version, toNullable(sum(findings)) AS count
    FROM rollup_findings
    WHERE {one_agent} AND severity != 'info'
    GROUP BY version
) AS found USING (version)
ORDER BY First DESC, Version
LIMIT 50

-- models
SELECT
    {model} AS Model,
    sum(rollup_agents.calls) AS Calls,
    if(Calls = 0, NULL, sum(errors) / Calls) AS Failed,
    if(Calls = 0, NULL, sum(rollup_agents.duration_ns) / Calls) AS Mean,
    sum(input_tokens) + sum(output_tokens) AS Tokens,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost
FROM rollup_agents
WHERE {work_of_agent} AND kind IN ('llm', 'embedding')
GROUP BY Model
ORDER BY Cost DESC NULLS LAST, Calls DESC, Model
LIMIT 50

-- tools
SELECT
    tool_name AS Tool,
    sum(rollup_agents.calls) AS Calls,
    if(Calls = 0, NULL, 1 - sum(tool_errors) / Calls) AS Success,
    if(Calls = 0, NULL, sum(rollup_agents.duration_ns) / Calls) AS Mean
FROM rollup_agents
WHERE {work_of_agent} AND kind = 'tool' AND tool_name != ''
GROUP BY Tool
ORDER BY Calls DESC, Tool
LIMIT 50

-- latest_findings
SELECT
    started_at AS Began,
    severity AS Severity,
    if(kind = '', toString(signature), concat(signature, '.', kind)) AS Finding,
    count AS Times,
    toFloat64(wasted_cost_usd) AS Wasted,
    trace_id AS Trace,
    arrayStringConcat(arrayMap((part, value) -> concat(part, ': ', value), mapKeys(evidence), mapValues(evidence)), '\n') AS Evidence
FROM findings FINAL
WHERE {one_agent_finding_rows}
ORDER BY started_at DESC, finding_id
LIMIT 50

-- latest_traces
SELECT
    start_time AS Began,
    trace_id AS Trace,
    root_name AS Root,
    duration_ns AS Duration,
    llm_calls AS `Model calls`,
    tool_calls AS `Tool calls`,
    error_count AS Errors,
    if(cost_usd = 0 AND unpriced_calls > 0, NULL, toFloat64(cost_usd)) AS Cost,
    arrayStringConcat(findings, ', ') AS Findings
FROM traces FINAL
WHERE {one_agent_traces}
ORDER BY traces.start_time DESC, Trace
LIMIT 50
