-- The values that a page of spans refers to.
SELECT trace_id, hash, any(value) AS value
FROM content
WHERE (tenant, trace_id, hash) IN (
    SELECT tenant, trace_id, arrayJoin(content).hash
    FROM spans FINAL
    WHERE day = {day} AND {chosen} AND {page}
)
GROUP BY tenant, trace_id, hash
