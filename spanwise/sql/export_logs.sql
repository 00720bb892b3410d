-- A page of log records with what OTLP says about them.
SELECT
    trace_id,
    span_id,
    toString(toUnixTimestamp64Nano(time)) AS time_unix_nano,
    toString(event_name) AS event,
    severity,
    scope,
    body,
    (mapKeys(attributes), mapValues(attributes), attribute_types) AS attribute_lists,
    (mapKeys(resource_attributes), mapValues(resource_attributes), '') AS resource_lists
FROM log_events FINAL
WHERE day = {day} AND {chosen} AND {page}
ORDER BY tenant, trace_id, time, record_id
