CREATE VIEW IF NOT EXISTS otel_traces AS
SELECT
    start_time AS Timestamp,
    trace_id AS TraceId,
    span_id AS SpanId,
    parent_span_id AS ParentSpanId,
    trace_state AS TraceState,
    name AS SpanName,
    initcap(toString(span_kind)) AS SpanKind,
    service AS ServiceName,
    resource_attributes AS ResourceAttributes,
    scope AS ScopeName,
    scope_version AS ScopeVersion,
    attributes AS SpanAttributes,
    duration_ns AS Duration,
    initcap(toString(status)) AS StatusCode,
    status_message AS StatusMessage,
    arrayMap(event -> tupleElement(event, 'time'), events) AS `Events.Timestamp`,
    arrayMap(event -> tupleElement(event, 'name'), events) AS `Events.Name`,
    arrayMap(event -> tupleElement(event, 'attributes'), events) AS `Events.Attributes`,
    arrayMap(link -> tupleElement(link, 'trace_id'), links) AS `Links.TraceId`,
    arrayMap(link -> tupleElement(link, 'span_id'), links) AS `Links.SpanId`,
    arrayMap(link -> tupleElement(link, 'trace_state'), links) AS `Links.TraceState`,
    arrayMap(link -> tupleElement(link, 'attributes'), links) AS `Links.Attributes`
FROM spans FINAL
COMMENT 'The columns of the OpenTelemetry ClickHouse exporter, so that dashboards written for it work. Values over 256 bytes are cut to 200 characters; span_content has them whole.';

CREATE VIEW IF NOT EXISTS span_content AS
SELECT
    tenant,
    trace_id,
    span_id,
    key,
    any(form) AS form,
    multiIf(
        form = 'item', concat('[', arrayStringConcat(arrayMap(item -> item.2, arraySort(groupArray((position, value)))), ','), ']'),
        form = 'item_sp', concat('[', arrayStringConcat(arrayMap(item -> item.2, arraySort(groupArray((position, value)))), ', '), ']'),
        any(value)
    ) AS value,
    countIf(hash_found = '') AS missing
FROM
(
    SELECT
        span.tenant AS tenant,
        span.trace_id AS trace_id,
        span.span_id AS span_id,
        toString(tupleElement(reference, 'key')) AS key,
        toString(tupleElement(reference, 'form')) AS form,
        tupleElement(reference, 'hash') AS hash,
        position
    FROM spans AS span FINAL
    ARRAY JOIN
        content AS reference,
        arrayEnumerate(content) AS position
) AS reference
LEFT ANY JOIN
(
    SELECT tenant, trace_id, hash, value, hash AS hash_found
    FROM content
) AS stored USING (tenant, trace_id, hash)
GROUP BY tenant, trace_id, span_id, key
COMMENT 'One row a span and key: the whole value of what `spans` keeps as a reference. Always give a tenant and a trace_id.';
