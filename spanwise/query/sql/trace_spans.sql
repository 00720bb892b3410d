SELECT * EXCEPT (content, attributes, attribute_types, resource_attributes, scope_attributes, events, links, fingerprint) REPLACE (
    replaceOne(toString(start_time), ' ', 'T') || 'Z' AS start_time,
    replaceOne(toString(received_at), ' ', 'T') || 'Z' AS received_at
)
FROM spans FINAL
WHERE tenant = {tenant:String} AND trace_id = {trace_id:String}
ORDER BY spans.start_time, span_id
