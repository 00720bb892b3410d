WITH recent AS
(
    SELECT *
    FROM spans FINAL
    WHERE received_at >= {since:DateTime64(3)}
)
SELECT *
FROM
(
    SELECT 'tool retry loop' AS what, service, trace_id, concat(toString(count()), ' times ', tool_name, input_preview) AS evidence
    FROM recent
    WHERE kind = 'tool'
    GROUP BY service, trace_id, tool_name, input_preview
    HAVING count() >= 5
    UNION ALL
    SELECT 'context overflow', service, trace_id, concat(request_model, ': ', status_message)
    FROM recent
    WHERE kind = 'llm' AND status = 'error' AND status_message ILIKE '%maximum context length%'
    UNION ALL
    SELECT 'ignored tool error', service, trace_id, concat(tool_name, ': ', error_type)
    FROM recent
    WHERE kind = 'tool' AND status = 'error'
      AND trace_id IN (SELECT trace_id FROM recent WHERE parent_span_id = '' AND status != 'error')
)
ORDER BY what
