CREATE VIEW IF NOT EXISTS rollup_live AS
WITH
    -- a histogram out of sorted values, where they change: a map for each row to add up takes half as long again
    arraySort(groupArrayIf(duration_bucket, is_call)) AS durations,
    arrayFilter((at, one, next) -> one != next, arrayEnumerate(durations), durations, arrayShiftLeft(durations, 1, toInt16(-32768))) AS duration_ends,
    arraySort(groupArrayIf(first_chunk_bucket, is_call AND has_first_chunk)) AS chunks,
    arrayFilter((at, one, next) -> one != next, arrayEnumerate(chunks), chunks, arrayShiftLeft(chunks, 1, toInt16(-32768))) AS chunk_ends
SELECT
    tenant,
    toStartOfMinute(start_time) AS minute,
    service,
    agent_name,
    agent_version,
    operation,
    kind,
    provider,
    if(response_model != '', response_model, request_model) AS model,
    tool_name,
    count() AS spans,
    countIf(is_call) AS calls,
    countIf(is_call AND failed) AS errors,
    countIf(is_call AND kind = 'tool' AND tool_failed) AS tool_errors,
    sumIf(span.input_tokens, own) AS input_tokens,
    sumIf(span.output_tokens, own) AS output_tokens,
    sumIf(span.cache_read_tokens, own) AS cache_read_tokens,
    sumIf(span.cache_write_tokens, own) AS cache_write_tokens,
    sumIf(span.reasoning_tokens, own) AS reasoning_tokens,
    sumIf(span.cost_usd, own) AS cost_usd,
    countIf(own AND unpriced) AS unpriced_calls,
    mapFromArrays(arrayMap(at -> durations[at], duration_ends), arrayMap((at, before) -> toUInt64(at - before), duration_ends, arrayShiftRight(duration_ends, 1, toUInt32(0)))) AS duration_buckets,
    mapFromArrays(arrayMap(at -> chunks[at], chunk_ends), arrayMap((at, before) -> toUInt64(at - before), chunk_ends, arrayShiftRight(chunk_ends, 1, toUInt32(0)))) AS first_chunk_buckets,
    min(span.day) AS day,
    min(span.received_at) AS received_at
FROM
(
    SELECT
        tenant,
        start_time,
        service,
        agent_name,
        agent_version,
        operation,
        kind,
        provider,
        request_model,
        response_model,
        tool_name,
        day,
        received_at,
        ifNull(input_tokens, 0) AS input_tokens,
        ifNull(output_tokens, 0) AS output_tokens,
        ifNull(cache_read_tokens, 0) AS cache_read_tokens,
        ifNull(cache_write_tokens, 0) AS cache_write_tokens,
        ifNull(reasoning_tokens, 0) AS reasoning_tokens,
        ifNull(cost_usd, toDecimal64(0, 9)) AS cost_usd,
        usage_scope = 'own' AS own,
        kind NOT IN ('llm', 'embedding') OR usage_scope != 'aggregate' AS is_call,
        status = 'error' OR error_type != '' AS failed,
        if(tool_status != '', tool_status = 'error', failed) AS tool_failed,
        spans.cost_usd IS NULL AND (spans.input_tokens IS NOT NULL OR spans.output_tokens IS NOT NULL) AS unpriced,
        toInt16(ceil(log2(greatest(duration_ns, 1)) / log2(1.02))) AS duration_bucket,
        time_to_first_chunk_s IS NOT NULL AS has_first_chunk,
        toInt16(ceil(log2(least(greatest(ifNull(time_to_first_chunk_s, 0) * 1e9, 1), 1e19)) / log2(1.02))) AS first_chunk_bucket
    FROM spans FINAL
    WHERE kind != '' OR operation != '' OR usage_scope = 'own'
) AS span
GROUP BY tenant, minute, service, agent_name, agent_version, operation, kind, provider, model, tool_name
COMMENT 'What a recount of `rollup_1m` counts, from the spans themselves. Always give a range of minutes.';

CREATE VIEW IF NOT EXISTS rollup AS
SELECT
    tenant, minute, service, agent_name, agent_version, operation, kind, provider, model, tool_name, spans, calls,
    errors, tool_errors, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_usd,
    unpriced_calls, duration_buckets, first_chunk_buckets
FROM rollup_1m FINAL
WHERE spans > 0 AND minute <= (
    SELECT max(minute) FROM rollup_1m WHERE minute <= now() AND day = (SELECT max(day) FROM rollup_1m WHERE day <= today())
)
UNION ALL
SELECT
    tenant, minute, service, agent_name, agent_version, operation, kind, provider, model, tool_name, spans, calls,
    errors, tool_errors, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_usd,
    unpriced_calls, duration_buckets, first_chunk_buckets
FROM rollup_live
WHERE minute > (
    SELECT max(minute) FROM rollup_1m WHERE minute <= now() AND day = (SELECT max(day) FROM rollup_1m WHERE day <= today())
)
COMMENT 'Sums by minute: the closed minutes from `rollup_1m`, later ones counted from the spans as you ask. A span that comes late for a closed minute is in it a minute or more later, see docs/rollups.md.';

CREATE VIEW IF NOT EXISTS rollup_1h AS
SELECT
    tenant, toStartOfHour(minute) AS hour, service, agent_name, agent_version, operation, kind, provider, model, tool_name,
    sum(rollup.spans) AS spans,
    sum(rollup.calls) AS calls,
    sum(rollup.errors) AS errors,
    sum(rollup.tool_errors) AS tool_errors,
    sum(rollup.input_tokens) AS input_tokens,
    sum(rollup.output_tokens) AS output_tokens,
    sum(rollup.cache_read_tokens) AS cache_read_tokens,
    sum(rollup.cache_write_tokens) AS cache_write_tokens,
    sum(rollup.reasoning_tokens) AS reasoning_tokens,
    sum(rollup.cost_usd) AS cost_usd,
    sum(rollup.unpriced_calls) AS unpriced_calls,
    sumMap(rollup.duration_buckets) AS duration_buckets,
    sumMap(rollup.first_chunk_buckets) AS first_chunk_buckets
FROM rollup
GROUP BY tenant, hour, service, agent_name, agent_version, operation, kind, provider, model, tool_name
COMMENT 'The same by hour.';

CREATE VIEW IF NOT EXISTS rollup_1d AS
SELECT
    tenant, toDate(minute) AS date, service, agent_name, agent_version, operation, kind, provider, model, tool_name,
    sum(rollup.spans) AS spans,
    sum(rollup.calls) AS calls,
    sum(rollup.errors) AS errors,
    sum(rollup.tool_errors) AS tool_errors,
    sum(rollup.input_tokens) AS input_tokens,
    sum(rollup.output_tokens) AS output_tokens,
    sum(rollup.cache_read_tokens) AS cache_read_tokens,
    sum(rollup.cache_write_tokens) AS cache_write_tokens,
    sum(rollup.reasoning_tokens) AS reasoning_tokens,
    sum(rollup.cost_usd) AS cost_usd,
    sum(rollup.unpriced_calls) AS unpriced_calls,
    sumMap(rollup.duration_buckets) AS duration_buckets,
    sumMap(rollup.first_chunk_buckets) AS first_chunk_buckets
FROM rollup
GROUP BY tenant, date, service, agent_name, agent_version, operation, kind, provider, model, tool_name
COMMENT 'The same by UTC day.';

CREATE VIEW IF NOT EXISTS rollup_findings AS
SELECT
    tenant,
    toStartOfMinute(started_at) AS minute,
    service,
    agent_name,
    agent_version,
    tool_name,
    model,
    signature,
    kind,
    severity,
    count() AS findings,
    sum(findings.count) AS occurrences,
    sum(findings.wasted_tokens) AS wasted_tokens,
    sum(findings.wasted_cost_usd) AS wasted_cost_usd
FROM findings FINAL
GROUP BY tenant, minute, service, agent_name, agent_version, tool_name, model, signature, kind, severity
COMMENT 'Findings by minute and signature, counted as you ask: a finding is one row already, and there are few.';

CREATE VIEW IF NOT EXISTS conversations AS
SELECT
    tenant,
    conversation_id,
    min(traces.start_time) AS first_time,
    max(traces.start_time + toIntervalNanosecond(traces.duration_ns)) AS last_time,
    count() AS traces,
    countIf(traces.error_count > 0) AS failed_traces,
    arraySort(groupUniqArrayArray(traces.services)) AS services,
    arraySort(groupUniqArrayArray(traces.agents)) AS agents,
    sum(traces.llm_calls) AS llm_calls,
    sum(traces.tool_calls) AS tool_calls,
    sum(traces.error_count) AS error_count,
    sum(traces.input_tokens) AS input_tokens,
    sum(traces.output_tokens) AS output_tokens,
    sum(traces.cache_read_tokens) AS cache_read_tokens,
    sum(traces.cost_usd) AS cost_usd,
    sum(traces.unpriced_calls) AS unpriced_calls,
    arraySort(groupUniqArrayArray(traces.findings)) AS findings
FROM traces FINAL
WHERE conversation_id != ''
GROUP BY tenant, conversation_id
COMMENT 'One row a conversation: everything its traces used and cost.';

CREATE VIEW IF NOT EXISTS rollup_agents AS
SELECT
    tenant,
    trace_id,
    start_time,
    minute,
    service,
    agent_name,
    agent_version,
    caller,
    kind,
    provider,
    model,
    tool_name,
    calls,
    errors,
    tool_errors,
    used_input AS input_tokens,
    used_output AS output_tokens,
    used_cache_read AS cache_read_tokens,
    used_cache_write AS cache_write_tokens,
    used_reasoning AS reasoning_tokens,
    used_cost AS cost_usd,
    without_price AS unpriced_calls,
    took_ns AS duration_ns
FROM traces FINAL
ARRAY JOIN
    work.minute AS minute,
    work.service AS service,
    work.agent_name AS agent_name,
    work.agent_version AS agent_version,
    work.caller AS caller,
    work.kind AS kind,
    work.provider AS provider,
    work.model AS model,
    work.tool_name AS tool_name,
    work.calls AS calls,
    work.errors AS errors,
    work.tool_errors AS tool_errors,
    work.input_tokens AS used_input,
    work.output_tokens AS used_output,
    work.cache_read_tokens AS used_cache_read,
    work.cache_write_tokens AS used_cache_write,
    work.reasoning_tokens AS used_reasoning,
    work.cost_usd AS used_cost,
    work.unpriced_calls AS without_price,
    work.duration_ns AS took_ns
COMMENT 'What each agent did and used, by trace and minute: work below an agent is the agent''s, also where its spans do not say so. It is counted when a trace has gone quiet, some seconds after its last span. `start_time` is that of the trace: give a range of it, too.';

CREATE VIEW IF NOT EXISTS agent_handoffs AS
SELECT
    tenant,
    trace_id,
    start_time,
    minute,
    service,
    caller AS source,
    agent_name AS target,
    rollup_agents.calls AS handoffs
FROM rollup_agents
WHERE kind = 'agent' AND caller != '' AND caller != agent_name
COMMENT 'How often one agent set another to work, by trace and minute: an agent span below another agent, whatever lies between.';

CREATE VIEW IF NOT EXISTS retrievals AS
SELECT
    tenant,
    start_time,
    service,
    agent_name,
    trace_id,
    span_id,
    kind,
    name,
    duration_ns,
    status = 'error' OR error_type != '' AS failed,
    arrayCount(reference -> tupleElement(reference, 'key') = 'gen_ai.retrieval.documents', content) AS documents
FROM spans FINAL
WHERE kind IN ('retrieval', 'rerank')
COMMENT 'One row a retrieval or reranking, and how many documents it returned, 0 where the producer sends none. Their scores are in `span_content`.';

CREATE VIEW IF NOT EXISTS escalations AS
SELECT
    tenant,
    start_time,
    service,
    agent_name,
    conversation_id,
    trace_id,
    span_id,
    if(kind = 'tool_wait', 'exact', 'proxy') AS basis,
    if(tool_name != '', toString(tool_name), toString(name)) AS what,
    attributes['spanwise.metadata.permission_decision'] AS decision,
    duration_ns
FROM spans FINAL
WHERE (kind = 'tool_wait' AND startsWith(attributes['source'], 'user'))
   OR (kind IN ('tool', 'handoff')
       AND match(if(tool_name != '', toString(tool_name), toString(name)), '(?i)(^|[^a-z])(human|escalate|escalation|ask_?user|live_agent)([^a-z]|$)|AskUser'))
COMMENT 'Where a run turned to a human. exact: the producer says that it waited for one. proxy: a tool or hand-off is named like it.';
