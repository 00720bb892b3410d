-- cost
SELECT if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS cost
FROM {usage}
WHERE {rollup}

-- pace
SELECT if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd)) / dateDiff('second', $__fromTime, $__toTime) * 86400 * 30) AS cost
FROM {usage}
WHERE {rollup}

-- cost_per_trace
SELECT if(count() = 0 OR (sum(cost_usd) = 0 AND sum(unpriced_calls) > 0), NULL, toFloat64(sum(cost_usd)) / count()) AS cost
FROM traces FINAL
WHERE {traces}

-- tokens
SELECT sum(input_tokens) + sum(output_tokens) AS tokens
FROM {usage}
WHERE {rollup}

-- cache_share
SELECT if(sum(input_tokens) = 0, NULL, sum(cache_read_tokens) / sum(input_tokens)) AS share
FROM {usage}
WHERE {rollup}

-- unpriced_calls
SELECT sum(unpriced_calls) AS calls
FROM {usage}
WHERE {rollup}

-- cost_by_agent
{top(agent_name)}

-- cost_by_model
{top(model)}

-- cost_by_service
{top(service)}

-- cost_by_tenant
{top(tenant)}

-- tokens_by_type
SELECT
    $__timeInterval(minute) AS time,
    greatest(toInt64(sum(input_tokens)) - toInt64(sum(cache_read_tokens)) - toInt64(sum(cache_write_tokens)), 0) AS `fresh input`,
    sum(cache_read_tokens) AS `cache read`,
    sum(cache_write_tokens) AS `cache write`,
    greatest(toInt64(sum(output_tokens)) - toInt64(sum(reasoning_tokens)), 0) AS output,
    sum(reasoning_tokens) AS reasoning
FROM {usage}
WHERE {rollup}
GROUP BY time
ORDER BY time

-- cache_share_by_model
SELECT time, model_label, if(input = 0, NULL, read / input) AS Value
FROM
(
    SELECT $__timeInterval(minute) AS time, toString(model) AS model_label, sum(cache_read_tokens) AS read, sum(input_tokens) AS input
    FROM {usage}
    WHERE {rollup} AND model != ''
    GROUP BY time, model_label
)
WHERE input > 0
ORDER BY time, model_label

-- spend
SELECT
    {service} AS Service,
    {agent} AS Agent,
    {model} AS Model,
    sum(rollup_agents.calls) AS Calls,
    sum(rollup_agents.input_tokens) AS Input,
    if(Input = 0, NULL, sum(cache_read_tokens) / Input) AS `From cache`,
    sum(rollup_agents.output_tokens) AS Output,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost,
    Cost / sum(Cost) OVER () AS Share,
    if(Calls = 0, NULL, Cost / Calls) AS `Per call`,
    if(Input + Output = 0, NULL, Cost / (Input + Output) * 1000000) AS `Per 1M tokens`
FROM rollup_agents
WHERE {work} AND (input_tokens > 0 OR output_tokens > 0 OR cost_usd > 0 OR unpriced_calls > 0)
GROUP BY Service, Agent, Model
ORDER BY Cost DESC NULLS LAST, Input DESC, Service, Agent, Model
LIMIT 200

-- tenants
SELECT
    tenant AS Tenant,
    sum(usage.input_tokens) AS Input,
    sum(usage.output_tokens) AS Output,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost,
    Cost / sum(Cost) OVER () AS Share
FROM {usage}
WHERE {rollup}
GROUP BY Tenant
ORDER BY Cost DESC NULLS LAST, Tenant
LIMIT 100

-- versions
SELECT
    {agent} AS Agent,
    if(agent_version = '', '(none)', agent_version) AS Version,
    sumIf(rollup_agents.calls, kind = 'agent') AS Runs,
    sum(input_tokens) + sum(output_tokens) AS Tokens,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost,
    if(Runs = 0, NULL, Tokens / Runs) AS `Tokens per run`,
    if(Runs = 0, NULL, Cost / Runs) AS `Cost per run`
FROM rollup_agents
WHERE {work} AND agent_name != ''
GROUP BY Agent, Version
ORDER BY Cost DESC NULLS LAST, Agent, Version
LIMIT 100

-- unpriced
SELECT
    provider AS Provider,
    {model} AS Model,
    sum(usage.unpriced_calls) AS Calls,
    sum(input_tokens) + sum(output_tokens) AS Tokens
FROM {usage}
WHERE {rollup} AND unpriced_calls > 0
GROUP BY Provider, Model
ORDER BY Tokens DESC, Provider, Model
LIMIT 100

-- dear_traces
SELECT
    start_time AS Began,
    trace_id AS Trace,
    root_name AS Root,
    arrayStringConcat(agents, ', ') AS Agents,
    llm_calls AS `Model calls`,
    traces.input_tokens + traces.output_tokens AS Tokens,
    if(cost_usd = 0 AND unpriced_calls > 0, NULL, toFloat64(cost_usd)) AS Cost,
    arrayStringConcat(findings, ', ') AS Findings
FROM traces FINAL
WHERE {traces} AND (input_tokens > 0 OR output_tokens > 0)
ORDER BY cost_usd DESC, Tokens DESC, Trace
LIMIT 20

-- dear_conversations
SELECT
    conversation_id AS Conversation,
    count() AS Traces,
    argMax(trace_id, start_time) AS Latest,
    sum(llm_calls) AS `Model calls`,
    sum(traces.input_tokens) + sum(traces.output_tokens) AS Tokens,
    if(sum(cost_usd) = 0 AND sum(unpriced_calls) > 0, NULL, toFloat64(sum(cost_usd))) AS Cost
FROM traces FINAL
WHERE {traces} AND conversation_id != ''
GROUP BY Conversation
ORDER BY Cost DESC NULLS LAST, Tokens DESC, Conversation
LIMIT 20
