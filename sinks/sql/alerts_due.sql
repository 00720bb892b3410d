-- Findings a webhook has not told about as bad as they are now, the worst first. Of each finding the newest row counts,
-- which is among the rows written since a time if any is: no FINAL, and the index on `version` applies.
WITH
    ['info', 'warning', 'high', 'critical'] AS severities,
    newest AS
    (
        SELECT *
        FROM findings
        WHERE version >= {since_ms:UInt64}
        ORDER BY version DESC
        LIMIT 1 BY tenant, finding_id
    ),
    told AS
    (
        SELECT finding_id, max(indexOf(severities, toString(severity))) AS told_rank
        FROM alert_deliveries
        WHERE webhook = {webhook:String} AND finding_id IN (SELECT finding_id FROM newest)
        GROUP BY finding_id
    )
SELECT
    finding_id,
    toString(tenant) AS tenant,
    trace_id,
    toString(signature) AS signature,
    toString(kind) AS kind,
    toString(severity) AS severity,
    toString(basis) AS basis,
    toString(service) AS service,
    toString(agent_name) AS agent_name,
    toString(agent_version) AS agent_version,
    toString(tool_name) AS tool_name,
    toString(model) AS model,
    conversation_id,
    first_span_id,
    last_span_id,
    span_ids,
    count,
    wasted_tokens,
    toString(wasted_cost_usd) AS wasted_cost_usd,
    evidence,
    rule_version,
    formatDateTime(started_at, '%Y-%m-%dT%H:%i:%SZ', 'UTC') AS started_at,
    formatDateTime(detected_at, '%Y-%m-%dT%H:%i:%SZ', 'UTC') AS detected_at,
    toInt64(version) AS written_ms,
    count() OVER () AS waiting,
    toInt64(min(version) OVER ()) AS oldest_ms
FROM newest
LEFT JOIN told USING (finding_id)
WHERE withdrawn = 0
  AND indexOf(severities, severity) >= {rank_min:UInt8}
  AND indexOf(severities, severity) > told_rank
  AND (empty({signatures:Array(String)})
       OR has({signatures:Array(String)}, signature)
       OR has({signatures:Array(String)}, concat(signature, '.', kind)))
  AND (empty({tenants:Array(String)}) OR has({tenants:Array(String)}, tenant))
ORDER BY indexOf(severities, severity) DESC, version, finding_id
LIMIT {limit:UInt32}
