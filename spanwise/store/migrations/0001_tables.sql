CREATE TABLE IF NOT EXISTS spans
(
    `tenant` LowCardinality(String) COMMENT 'Owner of the row: taken from the sender\'s token, never from the payload.',
    `trace_id` String COMMENT '32 lower-case hex digits.' CODEC(ZSTD(1)),
    `span_id` String COMMENT '16 lower-case hex digits.' CODEC(ZSTD(1)),
    `parent_span_id` String COMMENT '16 lower-case hex digits, \'\' for a root.' CODEC(ZSTD(1)),
    `trace_state` String COMMENT 'W3C tracestate as sent.' CODEC(ZSTD(1)),
    `flags` UInt32 COMMENT 'OTLP span flags as sent.' CODEC(T64, ZSTD(1)),
    `start_time` DateTime64(9, 'UTC') COMMENT 'Start of the span.' CODEC(Delta, ZSTD(1)),
    `duration_ns` UInt64 COMMENT 'End minus start, 0 where the end lies before it.' CODEC(T64, ZSTD(1)),
    `time_flag` LowCardinality(String) COMMENT '\'\' or why the times are not to be trusted: zero, ancient, future, inverted.',
    `service` LowCardinality(String) COMMENT 'Resource attribute `service.name`.',
    `service_version` LowCardinality(String) COMMENT 'Resource attribute `service.version`.',
    `scope` LowCardinality(String) COMMENT 'Instrumentation scope name.',
    `scope_version` LowCardinality(String) COMMENT 'Instrumentation scope version.',
    `name` LowCardinality(String) COMMENT 'Span name as sent.',
    `span_kind` LowCardinality(String) COMMENT 'unspecified, internal, server, client, producer or consumer.',
    `status` LowCardinality(String) COMMENT 'unset, ok or error, as sent.',
    `status_message` String COMMENT 'As sent.' CODEC(ZSTD(1)),
    `dialect` LowCardinality(String) COMMENT 'The instrumentation dialect that was recognised, \'\' for none.',
    `operation` LowCardinality(String) COMMENT 'Canonical `gen_ai.operation.name`, \'\' if none.',
    `kind` LowCardinality(String) COMMENT 'Class of span: llm, embedding, retrieval, tool, agent, workflow, chain, log ... \'\' if none.',
    `provider` LowCardinality(String) COMMENT 'Canonical `gen_ai.provider.name`.',
    `request_model` LowCardinality(String) COMMENT 'Canonical `gen_ai.request.model`.',
    `response_model` LowCardinality(String) COMMENT 'Canonical `gen_ai.response.model`.',
    `response_id` String COMMENT 'Canonical `gen_ai.response.id`.' CODEC(ZSTD(1)),
    `agent_name` LowCardinality(String) COMMENT 'Canonical `gen_ai.agent.name`.',
    `agent_id` String COMMENT 'Canonical `gen_ai.agent.id`: hosted agents only, never a run id.' CODEC(ZSTD(1)),
    `agent_version` LowCardinality(String) COMMENT 'Canonical `gen_ai.agent.version`.',
    `conversation_id` String COMMENT 'Canonical `gen_ai.conversation.id`, as stated on this span. `traces` has the inherited one.' CODEC(ZSTD(1)),
    `user_id` String COMMENT '`user.id`.' CODEC(ZSTD(1)),
    `workflow_name` LowCardinality(String) COMMENT 'Canonical `gen_ai.workflow.name`.',
    `tool_name` LowCardinality(String) COMMENT 'Canonical `gen_ai.tool.name`.',
    `tool_call_id` String COMMENT 'Canonical `gen_ai.tool.call.id`.' CODEC(ZSTD(1)),
    `input_tokens` Nullable(UInt64) COMMENT 'All input tokens, cache reads and writes included. NULL is unknown.' CODEC(ZSTD(1)),
    `output_tokens` Nullable(UInt64) COMMENT 'All output tokens, reasoning included. NULL is unknown.' CODEC(ZSTD(1)),
    `cache_read_tokens` Nullable(UInt64) COMMENT 'Part of `input_tokens` read from a cache.' CODEC(ZSTD(1)),
    `cache_write_tokens` Nullable(UInt64) COMMENT 'Part of `input_tokens` written to a cache.' CODEC(ZSTD(1)),
    `reasoning_tokens` Nullable(UInt64) COMMENT 'Part of `output_tokens` spent on reasoning.' CODEC(ZSTD(1)),
    `usage_scope` LowCardinality(String) COMMENT 'own: sum it. aggregate: repeats other spans, never sum it. none: no usage here.',
    `usage_scope_reason` LowCardinality(String) COMMENT 'Who decided `usage_scope`. \'\': the dialect\'s table, for good. tentative: the table, and the trace may say otherwise. descendant: a span below reports this usage. repeat: another span reports the same call.',
    `input_basis` LowCardinality(String) COMMENT 'What was done to reach the inclusive input: inclusive, exclusive_fixed, exclusive_unknown, unknown.',
    `cost_usd` Nullable(Decimal(18, 9)) COMMENT 'Our price of the usage in USD, NULL = unpriced.' CODEC(ZSTD(1)),
    `cost_source` LowCardinality(String) COMMENT 'Where `cost_usd` comes from: genai-prices, override, unknown_model, or \'\'.',
    `reported_cost_usd` Nullable(Decimal(18, 9)) COMMENT 'The cost the producer reported, in USD.' CODEC(ZSTD(1)),
    `time_to_first_chunk_s` Nullable(Float64) COMMENT 'Canonical `gen_ai.response.time_to_first_chunk`.' CODEC(ZSTD(1)),
    `finish_reasons` Array(LowCardinality(String)) COMMENT 'stop, length, content_filter, tool_call, error, compaction.',
    `finish_reasons_raw` Array(LowCardinality(String)) COMMENT 'The same in the producer\'s spelling.',
    `error_type` LowCardinality(String) COMMENT 'Canonical `error.type`, \'\' if the span did not fail.',
    `tool_status` LowCardinality(String) COMMENT 'success or error as the producer stated it, even where the span status differs.',
    `input_preview` String COMMENT 'First 200 characters of what went in: the newest user message, or the tool arguments.' CODEC(ZSTD(1)),
    `output_preview` String COMMENT 'First 200 characters of what came out.' CODEC(ZSTD(1)),
    `fingerprint` String COMMENT 'What detectors see of a GenAI span or a root: hashes, classes and token sketches of what went in and came out, never text. \'\' for other spans. Layout: `FINGERPRINT` in `processors/detect/steps.py`.' CODEC(ZSTD(1)),
    `content` Array(Tuple(key LowCardinality(String), form LowCardinality(String), hash String, bytes UInt32)) COMMENT 'References into `content`, in order. A canonical value stands under its name; an original value that was cut, under its place: `attributes.<key>`, `events[<index>].<key>`, `links[<index>].<key>`, `resource.<key>` or `scope.<key>`. form text: the value itself. form item: an element of the JSON array of that key; the elements joined by \',\' inside \'[]\' are the value. form item_sp: the same, joined by \', \'.' CODEC(ZSTD(1)),
    `attributes` Map(LowCardinality(String), String) COMMENT 'Every original attribute, then canonical ones that have no column. Values over 256 bytes are cut to 200 characters here and whole in `content`. Times that do not fit or make no sense are kept as `spanwise.start_time_unix_nano` and `spanwise.end_time_unix_nano`.' CODEC(ZSTD(1)),
    `attribute_types` String COMMENT 'One letter an entry of `attributes`: s string, b bool, i int, d double, a array, k key-value list, y bytes (hex), n empty. Upper case: derived by Spanwise, not sent.' CODEC(ZSTD(1)),
    `resource_attributes` Map(LowCardinality(String), String) COMMENT 'Resource attributes, cut as `attributes`.' CODEC(ZSTD(1)),
    `scope_attributes` Map(LowCardinality(String), String) COMMENT 'Instrumentation scope attributes, cut likewise.' CODEC(ZSTD(1)),
    `events` Array(Tuple(time DateTime64(9, 'UTC'), name LowCardinality(String), attributes Map(LowCardinality(String), String), types String)) COMMENT 'Span events in order, big values cut as in `attributes`.' CODEC(ZSTD(1)),
    `links` Array(Tuple(trace_id String, span_id String, trace_state String, attributes Map(LowCardinality(String), String))) COMMENT 'Span links in order, big values cut as in `attributes`.' CODEC(ZSTD(1)),
    `dropped_attributes_count` UInt32 COMMENT 'As sent.' CODEC(T64, ZSTD(1)),
    `dropped_events_count` UInt32 COMMENT 'As sent.' CODEC(T64, ZSTD(1)),
    `dropped_links_count` UInt32 COMMENT 'As sent.' CODEC(T64, ZSTD(1)),
    `schema_url` LowCardinality(String) COMMENT 'Schema URL of the scope, or else of the resource.',
    `day` Date COMMENT 'Partition: the UTC day of the event time, or of `received_at` where that time is impossible.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'When the request that carried the row was made durable. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `version` UInt64 COMMENT 'Which of several rows with one key wins, the same in any order of arrival: (end time >> 20 ns) in the upper 41 bits, then 19 bits of content hash, then 4 bits counting corrections.' CODEC(ZSTD(1)),
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.',
    INDEX by_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_conversation_id conversation_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_response_id response_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_start_time start_time TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY (day, retention)
ORDER BY (tenant, toStartOfMinute(start_time), trace_id, span_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1, min_bytes_for_wide_part = 134217728
COMMENT 'One row a span, canonical names of the newest OpenTelemetry GenAI conventions. Read it with `FINAL`.';

CREATE TABLE IF NOT EXISTS content
(
    `tenant` LowCardinality(String) COMMENT 'Owner of the row: taken from the sender\'s token, never from the payload.',
    `trace_id` String COMMENT '32 lower-case hex digits.' CODEC(ZSTD(1)),
    `hash` String COMMENT '32 hex digits: 128-bit XXH3 of `value`.' CODEC(ZSTD(1)),
    `value` String COMMENT 'The text itself, whole.' CODEC(ZSTD(1)) SETTINGS (min_compress_block_size = 16777216, max_compress_block_size = 16777216),
    `day` Date COMMENT 'Partition: the UTC day of the event time, or of `received_at` where that time is impossible.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'When the request that carried the row was made durable. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.'
)
ENGINE = ReplacingMergeTree()
PARTITION BY (day, retention)
ORDER BY (tenant, trace_id, hash)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1, min_bytes_for_wide_part = 134217728, index_granularity_bytes = 67108864, merge_max_block_size_bytes = 67108864
COMMENT 'Each distinct large value and chat message, once per trace and day.';

CREATE TABLE IF NOT EXISTS log_events
(
    `tenant` LowCardinality(String) COMMENT 'Owner of the row: taken from the sender\'s token, never from the payload.',
    `trace_id` String COMMENT '32 lower-case hex digits.' CODEC(ZSTD(1)),
    `span_id` String COMMENT '16 hex digits, \'\' where the record names no span.' CODEC(ZSTD(1)),
    `time` DateTime64(9, 'UTC') COMMENT 'Time of the record, or the observed time where it has none.' CODEC(Delta, ZSTD(1)),
    `event_name` LowCardinality(String) COMMENT 'EventName, or the attribute `event.name`.',
    `severity` UInt32 COMMENT 'OTLP severity number.' CODEC(T64, ZSTD(1)),
    `service` LowCardinality(String) COMMENT 'Resource attribute `service.name`.',
    `scope` LowCardinality(String) COMMENT 'Instrumentation scope name.',
    `dialect` LowCardinality(String) COMMENT 'The instrumentation dialect that was recognised.',
    `operation` LowCardinality(String) COMMENT 'Canonical `gen_ai.operation.name`, \'\' if none.',
    `kind` LowCardinality(String) COMMENT 'Class of span: llm, embedding, retrieval, tool, agent, workflow, chain, log ... \'\' if none.',
    `provider` LowCardinality(String) COMMENT 'Canonical `gen_ai.provider.name`.',
    `request_model` LowCardinality(String) COMMENT 'Canonical `gen_ai.request.model`.',
    `response_model` LowCardinality(String) COMMENT 'Canonical `gen_ai.response.model`.',
    `response_id` String COMMENT 'Canonical `gen_ai.response.id`.' CODEC(ZSTD(1)),
    `agent_name` LowCardinality(String) COMMENT 'Canonical `gen_ai.agent.name`.',
    `conversation_id` String COMMENT 'Canonical `gen_ai.conversation.id`, as stated on this span. `traces` has the inherited one.' CODEC(ZSTD(1)),
    `user_id` String COMMENT '`user.id`.' CODEC(ZSTD(1)),
    `tool_name` LowCardinality(String) COMMENT 'Canonical `gen_ai.tool.name`.',
    `tool_call_id` String COMMENT 'Canonical `gen_ai.tool.call.id`.' CODEC(ZSTD(1)),
    `input_tokens` Nullable(UInt64) COMMENT 'All input tokens, cache reads and writes included. NULL is unknown.' CODEC(ZSTD(1)),
    `output_tokens` Nullable(UInt64) COMMENT 'All output tokens, reasoning included. NULL is unknown.' CODEC(ZSTD(1)),
    `cache_read_tokens` Nullable(UInt64) COMMENT 'Part of `input_tokens` read from a cache.' CODEC(ZSTD(1)),
    `cache_write_tokens` Nullable(UInt64) COMMENT 'Part of `input_tokens` written to a cache.' CODEC(ZSTD(1)),
    `reasoning_tokens` Nullable(UInt64) COMMENT 'Part of `output_tokens` spent on reasoning.' CODEC(ZSTD(1)),
    `input_basis` LowCardinality(String) COMMENT 'What was done to reach the inclusive input: inclusive, exclusive_fixed, exclusive_unknown, unknown.',
    `reported_cost_usd` Nullable(Decimal(18, 9)) COMMENT 'The cost the producer reported, in USD.' CODEC(ZSTD(1)),
    `finish_reasons` Array(LowCardinality(String)) COMMENT 'stop, length, content_filter, tool_call, error, compaction.',
    `finish_reasons_raw` Array(LowCardinality(String)) COMMENT 'The same in the producer\'s spelling.',
    `error_type` LowCardinality(String) COMMENT 'Canonical `error.type`, \'\' if the span did not fail.',
    `tool_status` LowCardinality(String) COMMENT 'success or error as the producer stated it, even where the span status differs.',
    `input_preview` String COMMENT 'First 200 characters of what went in: the newest user message, or the tool arguments.' CODEC(ZSTD(1)),
    `output_preview` String COMMENT 'First 200 characters of what came out.' CODEC(ZSTD(1)),
    `content` Array(Tuple(key LowCardinality(String), form LowCardinality(String), hash String, bytes UInt32)) COMMENT 'References into `content`, in order. A canonical value stands under its name; an original value that was cut, under its place: `attributes.<key>`, `events[<index>].<key>`, `links[<index>].<key>`, `resource.<key>` or `scope.<key>`. form text: the value itself. form item: an element of the JSON array of that key; the elements joined by \',\' inside \'[]\' are the value. form item_sp: the same, joined by \', \'.' CODEC(ZSTD(1)),
    `body` String COMMENT 'Body: text as sent, anything else as JSON.' CODEC(ZSTD(1)),
    `attributes` Map(LowCardinality(String), String) COMMENT 'Every attribute, whole.' CODEC(ZSTD(1)),
    `attribute_types` String COMMENT 'As in `spans`.' CODEC(ZSTD(1)),
    `resource_attributes` Map(LowCardinality(String), String) COMMENT 'Resource attributes as sent.' CODEC(ZSTD(1)),
    `record_id` String COMMENT '32 hex digits: hash of the record, so that a repeated delivery is one row.' CODEC(ZSTD(1)),
    `day` Date COMMENT 'Partition: the UTC day of the event time, or of `received_at` where that time is impossible.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'When the request that carried the row was made durable. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.',
    INDEX by_response_id response_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree()
PARTITION BY (day, retention)
ORDER BY (tenant, trace_id, span_id, record_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1, min_bytes_for_wide_part = 134217728
COMMENT 'OTLP log records that carry GenAI content, cost or usage, normalised like spans and kept to be joined to them.';

CREATE TABLE IF NOT EXISTS traces
(
    `tenant` LowCardinality(String) COMMENT 'Owner of the row: taken from the sender\'s token, never from the payload.',
    `trace_id` String COMMENT '32 lower-case hex digits.' CODEC(ZSTD(1)),
    `start_time` DateTime64(9, 'UTC') COMMENT 'Earliest start of its spans.' CODEC(Delta, ZSTD(1)),
    `duration_ns` UInt64 COMMENT 'Latest end minus earliest start.' CODEC(T64, ZSTD(1)),
    `root_span_id` String COMMENT 'Span without a parent that starts first, \'\' while it has not arrived.' CODEC(ZSTD(1)),
    `root_name` LowCardinality(String) COMMENT 'Name of that span, or of the earliest one while the root has not arrived.',
    `services` Array(LowCardinality(String)) COMMENT 'Services, sorted.',
    `agents` Array(LowCardinality(String)) COMMENT 'Agent names, sorted.',
    `models` Array(LowCardinality(String)) COMMENT 'Models (response, else request), sorted.',
    `tools` Array(LowCardinality(String)) COMMENT 'Tool names, sorted.',
    `conversation_id` String COMMENT 'Of any of its spans: the one of the span nearest the root.' CODEC(ZSTD(1)),
    `user_id` String COMMENT 'Likewise.' CODEC(ZSTD(1)),
    `workflow_name` LowCardinality(String) COMMENT 'Likewise.',
    `span_count` UInt32 COMMENT 'Distinct spans.' CODEC(T64, ZSTD(1)),
    `llm_calls` UInt32 COMMENT 'Model calls: spans of kind llm that are not the repeat of another.' CODEC(T64, ZSTD(1)),
    `tool_calls` UInt32 COMMENT 'Spans of kind tool.' CODEC(T64, ZSTD(1)),
    `error_count` UInt32 COMMENT 'Spans with status error or an error type.' CODEC(T64, ZSTD(1)),
    `input_tokens` UInt64 COMMENT 'Sum over usage_scope own.',
    `output_tokens` UInt64 COMMENT 'Sum over usage_scope own.',
    `cache_read_tokens` UInt64 COMMENT 'Sum over usage_scope own.',
    `cache_write_tokens` UInt64 COMMENT 'Sum over usage_scope own.',
    `reasoning_tokens` UInt64 COMMENT 'Sum over usage_scope own.',
    `cost_usd` Decimal(18, 9) COMMENT 'Sum over usage_scope own, USD.',
    `reported_cost_usd` Decimal(18, 9) COMMENT 'Sum over usage_scope own, USD.',
    `unpriced_calls` UInt32 COMMENT 'Spans with usage_scope own and usage, but no price.' CODEC(T64, ZSTD(1)),
    `work` Array(Tuple(minute DateTime('UTC'), service LowCardinality(String), agent_name LowCardinality(String), agent_version LowCardinality(String), caller LowCardinality(String), kind LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), tool_name LowCardinality(String), calls UInt32, errors UInt32, tool_errors UInt32, input_tokens UInt64, output_tokens UInt64, cache_read_tokens UInt64, cache_write_tokens UInt64, reasoning_tokens UInt64, cost_usd Decimal(18, 9), unpriced_calls UInt32, duration_ns UInt64)) COMMENT 'What was done and used, by minute, agent, model and tool. A span that names no agent belongs to its nearest ancestor that does; `caller` is the agent that an agent was started by. Read the view `rollup_agents`.' CODEC(ZSTD(1)),
    `findings` Array(LowCardinality(String)) COMMENT 'Failure signatures found, `signature` or `signature.kind`, sorted. The rows are in `findings`.',
    `finding_severity` LowCardinality(String) COMMENT 'The worst of them: info, warning, high or critical; \'\' for none.',
    `partial` LowCardinality(String) COMMENT '\'\' for a trace that was decided as a whole. `oversized` or `failed`: its figures are sums of its spans as they were stored, see docs/usage-scope.md.',
    `day` Date COMMENT 'Partition: the UTC day of the event time, or of `received_at` where that time is impossible.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'When the request that carried the row was made durable. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `version` UInt64 COMMENT 'Grows with every recount.' CODEC(ZSTD(1)),
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.',
    INDEX by_start_time start_time TYPE minmax GRANULARITY 1,
    INDEX by_conversation_id conversation_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY (day, retention)
ORDER BY (tenant, trace_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'One summary a trace, recounted from its deduplicated spans whenever they change. Read it with `FINAL`.';

CREATE TABLE IF NOT EXISTS findings
(
    `tenant` LowCardinality(String) COMMENT 'Owner of the row: taken from the sender\'s token, never from the payload.',
    `trace_id` String COMMENT '32 lower-case hex digits.' CODEC(ZSTD(1)),
    `finding_id` String COMMENT '32 hex digits: hash of tenant, trace, signature, kind and first span. Never changes.' CODEC(ZSTD(1)),
    `signature` LowCardinality(String) COMMENT 'What was found: retry_loop, tool_error, context_limit ... See docs/signatures.',
    `kind` LowCardinality(String) COMMENT 'Which kind of it, \'\' where a signature has one kind.',
    `severity` LowCardinality(String) COMMENT 'info, warning, high or critical.',
    `basis` LowCardinality(String) COMMENT 'exact: the spans prove it. proxy: a hint that needs a look.',
    `service` LowCardinality(String) COMMENT 'Service of the first span.',
    `agent_name` LowCardinality(String) COMMENT 'Agent of the first span: its own or its nearest ancestor\'s.',
    `agent_version` LowCardinality(String) COMMENT 'Version of that agent.',
    `tool_name` LowCardinality(String) COMMENT 'Tool of the first span that has one.',
    `model` LowCardinality(String) COMMENT 'Model of the first span that has one: response, else request.',
    `conversation_id` String COMMENT 'Conversation of the first span that has one.' CODEC(ZSTD(1)),
    `first_span_id` String COMMENT 'The span that anchors the finding.' CODEC(ZSTD(1)),
    `last_span_id` String COMMENT 'The last span that shows it.' CODEC(ZSTD(1)),
    `span_ids` Array(String) COMMENT 'The spans that show it, in order.' CODEC(ZSTD(1)),
    `count` UInt32 COMMENT 'How often it happened: repetitions, errors, calls.' CODEC(T64, ZSTD(1)),
    `wasted_tokens` UInt64 COMMENT 'Own tokens of the spans that were for nothing.' CODEC(ZSTD(1)),
    `wasted_cost_usd` Decimal(18, 9) COMMENT 'Their own cost, USD, as far as it is known.' CODEC(ZSTD(1)),
    `evidence` Map(LowCardinality(String), String) COMMENT 'The numbers that made it fire, and short excerpts named `<part> of <span id>`.' CODEC(ZSTD(1)),
    `rule_version` UInt32 COMMENT 'Version of the signature\'s rule.' CODEC(T64, ZSTD(1)),
    `started_at` DateTime64(9, 'UTC') COMMENT 'Start of the first span.' CODEC(Delta, ZSTD(1)),
    `detected_at` DateTime64(3, 'UTC') COMMENT 'When it was first found.' CODEC(Delta, ZSTD(1)),
    `day` Date COMMENT 'Partition: the UTC day of the event time, or of `received_at` where that time is impossible.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'When the request that carried the row was made durable. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `version` UInt64 COMMENT 'Grows each time the finding is written.' CODEC(ZSTD(1)),
    `withdrawn` UInt8 COMMENT '1: spans that came late showed that it was none.',
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.',
    INDEX by_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_version version TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, withdrawn)
PARTITION BY (day, retention)
ORDER BY (tenant, toStartOfHour(started_at), trace_id, finding_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'One row a failure found in a trace, written again when it grows. Read it with `FINAL`.';

CREATE TABLE IF NOT EXISTS alert_deliveries
(
    `webhook` LowCardinality(String) COMMENT 'Name of the webhook in the configuration.',
    `finding_id` String COMMENT 'As in `findings`; \'\' in the row that says since when the webhook is known.' CODEC(ZSTD(1)),
    `severity` LowCardinality(String) COMMENT 'Severity of the finding when it was sent. A finding that gets worse is sent again.',
    `outcome` LowCardinality(String) COMMENT 'sent: alone. digest: in one message with others. rejected: the receiver will never take it. expired: it could not be sent in time. known: see `finding_id`.',
    `message` String COMMENT '`Idempotency-Key` of the message.' CODEC(ZSTD(1)),
    `tenant` LowCardinality(String) COMMENT 'As in `findings`.',
    `day` Date COMMENT 'Partition: the UTC day of `received_at`.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'When the receiver had answered, or the outcome was certain. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.'
)
ENGINE = ReplacingMergeTree()
PARTITION BY (day, retention)
ORDER BY (webhook, finding_id, severity)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'Which webhook was told about which finding, and how bad it was then. What is not here is still to be sent.';

CREATE TABLE IF NOT EXISTS rollup_1m
(
    `tenant` LowCardinality(String) COMMENT 'Owner of the row: taken from the sender\'s token, never from the payload.',
    `minute` DateTime('UTC') COMMENT 'Start of the minute in which the spans started.' CODEC(ZSTD(1)),
    `service` LowCardinality(String) COMMENT 'As in `spans`, like the other dimensions.',
    `agent_name` LowCardinality(String) COMMENT 'As the span states it.',
    `agent_version` LowCardinality(String) COMMENT 'Likewise.',
    `operation` LowCardinality(String) COMMENT 'Canonical `gen_ai.operation.name`.',
    `kind` LowCardinality(String) COMMENT 'Class of span.',
    `provider` LowCardinality(String) COMMENT 'Canonical `gen_ai.provider.name`.',
    `model` LowCardinality(String) COMMENT 'Model: response, else request.',
    `tool_name` LowCardinality(String) COMMENT 'Canonical `gen_ai.tool.name`.',
    `spans` UInt64 COMMENT 'Distinct spans. 0: the group was counted once and has vanished since; the views leave it out.' CODEC(T64, ZSTD(1)),
    `calls` UInt64 COMMENT 'Spans that are not the repeat of another span\'s model call.' CODEC(T64, ZSTD(1)),
    `errors` UInt64 COMMENT 'The part of the calls with status error or an error type.' CODEC(T64, ZSTD(1)),
    `tool_errors` UInt64 COMMENT 'The part of the calls of kind tool that failed: as the producer says, else as `errors`.' CODEC(T64, ZSTD(1)),
    `input_tokens` UInt64 COMMENT 'Sum over usage_scope own, like the other tokens.' CODEC(T64, ZSTD(1)),
    `output_tokens` UInt64 COMMENT 'Reasoning included.' CODEC(T64, ZSTD(1)),
    `cache_read_tokens` UInt64 COMMENT 'Part of `input_tokens`.' CODEC(T64, ZSTD(1)),
    `cache_write_tokens` UInt64 COMMENT 'Part of `input_tokens`.' CODEC(T64, ZSTD(1)),
    `reasoning_tokens` UInt64 COMMENT 'Part of `output_tokens`.' CODEC(T64, ZSTD(1)),
    `cost_usd` Decimal(38, 9) COMMENT 'Sum over usage_scope own, USD: stored as the exact number of 10⁻⁹ USD.' CODEC(ZSTD(1)),
    `unpriced_calls` UInt64 COMMENT 'Spans with usage_scope own and usage, but no price.' CODEC(T64, ZSTD(1)),
    `duration_buckets` Map(Int16, UInt64) COMMENT 'Durations of the calls: how many lie in bucket b, which holds nanoseconds above 1.02^(b-1) up to 1.02^b. `sumMap` merges them exactly; a quantile is at most 1 % off.' CODEC(ZSTD(1)),
    `first_chunk_buckets` Map(Int16, UInt64) COMMENT 'The same for the time to the first chunk, where it is known.' CODEC(ZSTD(1)),
    `day` Date COMMENT 'Partition: the UTC day of the minute.',
    `received_at` DateTime64(3, 'UTC') COMMENT 'Receipt of the first span counted. TTLs count from here.' CODEC(Delta, ZSTD(1)),
    `version` UInt64 COMMENT 'When the count began, ns: the last one has seen everything.',
    `retention` LowCardinality(String) DEFAULT '' COMMENT 'How long the row is kept: the class of its tenant in `store.ttl_classes`, \'\' for the common one; with `failed` at its end once it was kept longer because its trace failed. Filled in by the store.'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY (day, retention)
ORDER BY (tenant, minute, service, agent_name, agent_version, operation, kind, provider, model, tool_name)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'Sums of one closed minute, recounted from its deduplicated GenAI spans whenever they change. Read the view `rollup`, which adds what is not counted yet.';
