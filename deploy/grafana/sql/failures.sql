-- choose_signatures
SELECT DISTINCT signature
FROM rollup_findings
WHERE $__timeFilter(minute)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
ORDER BY signature

-- choose_severities
SELECT DISTINCT severity
FROM rollup_findings
WHERE $__timeFilter(minute)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
ORDER BY indexOf(['critical', 'high', 'warning', 'info'], severity)

-- found
SELECT sum(findings) AS findings
FROM rollup_findings
WHERE {findings} {chosen_findings}

-- severe
SELECT sumIf(findings, severity IN ('high', 'critical')) AS findings
FROM rollup_findings
WHERE {findings} {chosen_findings}

-- agents_hit
SELECT uniqExact(service, agent_name) AS agents
FROM rollup_findings
WHERE {findings} {chosen_findings}

-- traces_hit
SELECT uniqExact(tenant, trace_id) AS traces
FROM findings FINAL
WHERE {finding_rows} {chosen_findings}

-- wasted_cost
SELECT toFloat64(sum(wasted_cost_usd)) AS cost
FROM rollup_findings
WHERE {findings} {chosen_findings}

-- wasted_tokens
SELECT sum(wasted_tokens) AS tokens
FROM rollup_findings
WHERE {findings} {chosen_findings}

-- by_signature
SELECT $__timeInterval(minute) AS time, toString(signature) AS found, sum(findings) AS Value
FROM rollup_findings
WHERE {findings} {chosen_findings}
GROUP BY time, found
ORDER BY time, found

-- by_severity
SELECT $__timeInterval(minute) AS time, toString(severity) AS level, sum(findings) AS Value
FROM rollup_findings
WHERE {findings} {chosen_findings}
GROUP BY time, level
ORDER BY time, level

-- wasted_by_agent
SELECT $__timeInterval(minute) AS time, {agent} AS agent_label, toFloat64(sum(wasted_cost_usd)) AS Value
FROM rollup_findings
WHERE {findings} {chosen_findings}
GROUP BY time, agent_label
HAVING Value > 0
ORDER BY time, agent_label

-- failed_calls
SELECT $__timeInterval(minute) AS time, toString(kind) AS kind_of_call, sum(errors) AS Value
FROM {usage}
WHERE {rollup} AND kind != ''
GROUP BY time, kind_of_call
HAVING Value > 0
ORDER BY time, kind_of_call

-- signatures
SELECT
    signature AS Signature,
    kind AS Kind,
    severity AS Severity,
    sum(rollup_findings.findings) AS Findings,
    sum(rollup_findings.occurrences) AS Occurrences,
    uniqExact(service, agent_name) AS Agents,
    sum(rollup_findings.wasted_tokens) AS `Wasted tokens`,
    toFloat64(sum(wasted_cost_usd)) AS Wasted,
    max(minute) AS Last,
    'What to do' AS Runbook
FROM rollup_findings
WHERE {findings} {chosen_findings}
GROUP BY Signature, Kind, Severity
ORDER BY indexOf(['critical', 'high', 'warning', 'info'], Severity), Findings DESC, Signature, Kind
LIMIT 100

-- versions
SELECT
    {service} AS Service,
    {agent} AS Agent,
    if(agent_version = '', '(none)', agent_version) AS Version,
    sum(rollup_findings.findings) AS Findings,
    toFloat64(sum(wasted_cost_usd)) AS Wasted,
    max(minute) AS Last
FROM rollup_findings
WHERE {findings} {chosen_findings}
GROUP BY Service, Agent, Version
ORDER BY Findings DESC, Service, Agent, Version
LIMIT 100

-- tools
SELECT
    tool_name AS Tool,
    sum(usage.calls) AS Calls,
    sum(usage.tool_errors) AS Failed,
    if(Calls = 0, NULL, 1 - Failed / Calls) AS Success
FROM {usage}
WHERE {rollup_any_model} AND kind = 'tool' AND tool_name != ''
GROUP BY Tool
HAVING Failed > 0
ORDER BY Failed DESC, Tool
LIMIT 50

-- latest
SELECT
    started_at AS Began,
    severity AS Severity,
    if(kind = '', toString(signature), concat(signature, '.', kind)) AS Finding,
    service AS Service,
    {agent} AS Agent,
    if(tool_name = '', toString(model), toString(tool_name)) AS `Tool or model`,
    count AS Times,
    toFloat64(wasted_cost_usd) AS Wasted,
    basis AS Basis,
    trace_id AS Trace,
    arrayStringConcat(arrayMap((part, value) -> concat(part, ': ', value), mapKeys(evidence), mapValues(evidence)), '\n') AS Evidence
FROM findings FINAL
WHERE {finding_rows} {chosen_findings}
ORDER BY started_at DESC, finding_id
LIMIT 100
