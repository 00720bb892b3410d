-- A page of spans with what OTLP says about them. Big values are references.
SELECT
    trace_id,
    span_id,
    parent_span_id,
    trace_state,
    flags,
    toString(toUnixTimestamp64Nano(start_time)) AS start_unix_nano,
    toString(duration_ns) AS duration,
    scope,
    scope_version,
    schema_url,
    name,
    toString(span_kind) AS kind_name,
    toString(status) AS status_name,
    status_message,
    (mapKeys(attributes), mapValues(attributes), attribute_types) AS attribute_lists,
    (mapKeys(resource_attributes), mapValues(resource_attributes), '') AS resource_lists,
    (mapKeys(scope_attributes), mapValues(scope_attributes), '') AS scope_lists,
    arrayMap(
        each -> (
            toString(toUnixTimestamp64Nano(each.time)), toString(each.name),
            (mapKeys(each.attributes), mapValues(each.attributes), each.types)
        ),
        events
    ) AS event_lists,
    arrayMap(
        each -> (each.trace_id, each.span_id, each.trace_state, (mapKeys(each.attributes), mapValues(each.attributes), '')),
        links
    ) AS link_lists,
    arrayMap(
        each -> (toString(each.key), toString(each.form), each.hash),
        arrayFilter(each -> match(each.key, '^((attributes|resource|scope)[.]|(events|links)\\[)'), content)
    ) AS reference_lists,
    dropped_attributes_count,
    dropped_events_count,
    dropped_links_count
FROM spans FINAL
WHERE day = {day} AND {chosen} AND {page}
ORDER BY tenant, trace_id, start_time, span_id
