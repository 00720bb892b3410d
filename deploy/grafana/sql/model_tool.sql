-- model_calls
SELECT sum(calls) AS calls
FROM rollup
WHERE {one_model}

-- model_failed
SELECT if(sum(calls) = 0, NULL, sum(errors) / sum(calls)) AS share
FROM rollup
WHERE {one_model}

-- model_p95
SELECT if(sum(calls) = 0, NULL, {quantile(0.95)}) AS duration
FROM rollup
WHERE {one_model}

-- model_first_chunk
SELECT if(empty(sumMap(first_chunk_buckets)), NULL, {first_chunk(0.95)}) AS duration
FROM rollup
WHERE {one_model}

-- model_cost
SELECT if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS cost
FROM rollup
WHERE {one_model}

-- model_tokens
SELECT sum(input_tokens) + sum(output_tokens) AS tokens
FROM rollup
WHERE {one_model}

-- model_calls_over_time
SELECT $__timeInterval(minute) AS time, sum(calls) - sum(errors) AS ok, sum(errors) AS failed
FROM rollup
WHERE {one_model}
GROUP BY time
ORDER BY time

-- model_duration
SELECT
    $__timeInterval(minute) AS time,
    toNullable({quantile(0.5)}) AS p50,
    toNullable({quantile(0.95)}) AS p95,
    toNullable({quantile(0.99)}) AS p99
FROM rollup
WHERE {one_model} AND calls > 0
GROUP BY time
ORDER BY time {fill}

-- model_first_chunk_over_time
SELECT
    $__timeInterval(minute) AS time,
    toNullable({first_chunk(0.5)}) AS p50,
    toNullable({first_chunk(0.95)}) AS p95
FROM rollup
WHERE {one_model} AND notEmpty(first_chunk_buckets)
GROUP BY time
ORDER BY time {fill}

-- model_tokens_by_type
SELECT
    $__timeInterval(minute) AS time,
    greatest(toInt64(sum(input_tokens)) - toInt64(sum(cache_read_tokens)) - toInt64(sum(cache_write_tokens)), 0) AS `fresh input`,
    sum(cache_read_tokens) AS `cache read`,
    sum(cache_write_tokens) AS `cache write`,
    greatest(toInt64(sum(output_tokens)) - toInt64(sum(reasoning_tokens)), 0) AS output,
    sum(reasoning_tokens) AS reasoning
FROM rollup
WHERE {one_model}
GROUP BY time
ORDER BY time

-- model_agents
SELECT
    {service} AS Service,
    {agent} AS Agent,
    sum(rollup_agents.calls) AS Calls,
    if(Calls = 0, NULL, sum(errors) / Calls) AS Failed,
    if(Calls = 0, NULL, sum(rollup_agents.duration_ns) / Calls) AS Mean,
    sum(input_tokens) + sum(output_tokens) AS Tokens,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost
FROM rollup_agents
WHERE {work_of_model}
GROUP BY Service, Agent
ORDER BY Cost DESC NULLS LAST, Calls DESC, Service, Agent
LIMIT 50

-- tool_calls
SELECT sum(calls) AS calls
FROM rollup
WHERE {one_tool}

-- tool_success
SELECT if(sum(calls) = 0, NULL, 1 - sum(tool_errors) / sum(calls)) AS share
FROM rollup
WHERE {one_tool}

-- tool_p50
SELECT if(sum(calls) = 0, NULL, {quantile(0.5)}) AS duration
FROM rollup
WHERE {one_tool}

-- tool_p95
SELECT if(sum(calls) = 0, NULL, {quantile(0.95)}) AS duration
FROM rollup
WHERE {one_tool}

-- tool_findings
SELECT sum(findings) AS findings
FROM rollup_findings
WHERE {one_tool_findings} AND severity != 'info'

-- tool_wasted
SELECT toFloat64(sum(wasted_cost_usd)) AS cost
FROM rollup_findings
WHERE {one_tool_findings}

-- tool_calls_over_time
SELECT $__timeInterval(minute) AS time, sum(calls) - sum(tool_errors) AS ok, sum(tool_errors) AS failed
FROM rollup
WHERE {one_tool}
GROUP BY time
ORDER BY time

-- tool_duration
SELECT
    $__timeInterval(minute) AS time,
    toNullable({quantile(0.5)}) AS p50,
    toNullable({quantile(0.95)}) AS p95,
    toNullable({quantile(0.99)}) AS p99
FROM rollup
WHERE {one_tool} AND calls > 0
GROUP BY time
ORDER BY time {fill}

-- tool_agents
SELECT
    {service} AS Service,
    {agent} AS Agent,
    sum(rollup_agents.calls) AS Calls,
    if(Calls = 0, NULL, 1 - sum(tool_errors) / Calls) AS Success,
    if(Calls = 0, NULL, sum(rollup_agents.duration_ns) / Calls) AS Mean
FROM rollup_agents
WHERE {work_of_tool}
GROUP BY Service, Agent
ORDER BY Calls DESC, Service, Agent
LIMIT 50

-- tool_latest_findings
SELECT
    started_at AS Began,
    severity AS Severity,
    if(kind = '', toString(signature), concat(signature, '.', kind)) AS Finding,
    {agent} AS Agent,
    count AS Times,
    trace_id AS Trace,
    arrayStringConcat(arrayMap((part, value) -> concat(part, ': ', value), mapKeys(evidence), mapValues(evidence)), '\n') AS Evidence
FROM findings FINAL
WHERE {one_tool_finding_rows}
ORDER BY started_at DESC, finding_id
LIMIT 50
