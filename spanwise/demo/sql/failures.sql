SELECT
    concat(if(kind = '', signature, concat(signature, '.', kind)), ' × ', toString(count)) AS what,
    severity,
    service,
    trace_id,
    concat(if(tool_name = '', model, tool_name), ': ', arrayElement(arrayFilter(
        (value, name) -> name LIKE '% of %', mapValues(evidence), mapKeys(evidence)), -1)) AS evidence
FROM findings FINAL
WHERE received_at >= {since:DateTime64(3)} AND severity != 'info'
ORDER BY indexOf(['critical', 'high', 'warning'], severity), what
