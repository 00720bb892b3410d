"""The data every part of Spanwise shares: one column table per stored table.

DDL, Arrow schema, insert order and the table reference in `docs/` are all derived from the members of `TABLES`. A
`SpanBatch` is a `pyarrow.RecordBatch` with the schema `SPANS.arrow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

import pyarrow as pa

Signal: TypeAlias = Literal["traces", "logs"]
SpanBatch: TypeAlias = pa.RecordBatch

_DICT = pa.dictionary(pa.int32(), pa.utf8())
_NANOS = pa.timestamp("ns", tz="UTC")
_MILLIS = pa.timestamp("ms", tz="UTC")
_MAP = pa.map_(pa.utf8(), pa.utf8())
_MONEY = pa.decimal128(18, 9)
_BUCKETS = pa.map_(pa.int16(), pa.uint64())
_CONTENT = pa.list_(pa.struct([("key", pa.utf8()), ("form", pa.utf8()), ("hash", pa.utf8()), ("bytes", pa.uint32())]))
_EVENTS = pa.list_(pa.struct([("time", _NANOS), ("name", pa.utf8()), ("attributes", _MAP), ("types", pa.utf8())]))
_WORK = pa.list_(
    pa.struct(
        [
            ("minute", pa.uint32()),
            *((name, pa.utf8()) for name in ("service", "agent_name", "agent_version", "caller", "kind")),
            *((name, pa.utf8()) for name in ("provider", "model", "tool_name")),
            *((name, pa.uint32()) for name in ("calls", "errors", "tool_errors")),
            *((name, pa.uint64()) for name in ("input_tokens", "output_tokens", "cache_read_tokens")),
            *((name, pa.uint64()) for name in ("cache_write_tokens", "reasoning_tokens")),
            ("cost_usd", _MONEY),
            ("unpriced_calls", pa.uint32()),
            ("duration_ns", pa.uint64()),
        ]
    )
)
_LINKS = pa.list_(
    pa.struct([("trace_id", pa.utf8()), ("span_id", pa.utf8()), ("trace_state", pa.utf8()), ("attributes", _MAP)])
)

_LC = "LowCardinality(String)"
_LC_MAP = "Map(LowCardinality(String), String)"


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column: its name, ClickHouse type, Arrow type, codec and what it means to a reader."""

    name: str
    type: str
    arrow: pa.DataType
    doc: str
    codec: str = ""


@dataclass(frozen=True)
class Table:
    """A stored table: columns in insert order, the row identity and what one row is."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    order_by: tuple[str, ...]
    version: str = ""
    """The ReplacingMergeTree version column; '' keeps any one of equal rows."""
    deleted: str = ""
    """The column that is 1 in a version that takes the row away; '' where rows never go."""
    shard_by: str = "cityHash64(trace_id)"
    """Which shard of a cluster a row lies on: an expression of key columns, the same for all versions of the row."""

    @property
    def stored(self) -> tuple[Column, ...]:
        """All columns of the table in ClickHouse."""
        return (*self.columns, RETENTION)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(column.name, column.arrow) for column in self.columns])


def _lc(name: str, doc: str) -> Column:
    return Column(name, _LC, _DICT, doc)


def _text(name: str, doc: str) -> Column:
    return Column(name, "String", pa.utf8(), doc, "ZSTD(1)")


def _tokens(name: str, doc: str) -> Column:
    return Column(name, "Nullable(UInt64)", pa.uint64(), doc, "ZSTD(1)")


def _count(name: str, doc: str) -> Column:
    return Column(name, "UInt32", pa.uint32(), doc, "T64, ZSTD(1)")


_TENANT = _lc("tenant", "Owner of the row: taken from the sender's token, never from the payload.")
_TRACE_ID = Column("trace_id", "String", pa.utf8(), "32 lower-case hex digits.", "ZSTD(1)")
_DAY = Column(
    "day",
    "Date",
    pa.date32(),
    "Partition: the UTC day of the event time, or of `received_at` where that time is impossible.",
)
_RECEIVED = Column(
    "received_at",
    "DateTime64(3, 'UTC')",
    _MILLIS,
    "When the request that carried the row was made durable. TTLs count from here.",
    "Delta, ZSTD(1)",
)
RETENTION: Final = Column(
    "retention",
    _LC,
    _DICT,
    "How long the row is kept: the class of its tenant in `store.ttl_classes`, '' for the common one; with `failed` at its "
    "end once it was kept longer because its trace failed. Filled in by the store.",
)
"""The last column of every table, in no batch: ClickHouse computes it."""
_VERSION = Column(
    "version",
    "UInt64",
    pa.uint64(),
    "Which of several rows with one key wins, the same in any order of arrival: (end time >> 20 ns) in the upper "
    "41 bits, then 19 bits of content hash, then 4 bits counting corrections.",
    "ZSTD(1)",
)

SPANS: Final = Table(
    "spans",
    "One row a span, canonical names of the newest OpenTelemetry GenAI conventions. Read it with `FINAL`.",
    (
        _TENANT,
        _TRACE_ID,
        _text("span_id", "16 lower-case hex digits."),
        _text("parent_span_id", "16 lower-case hex digits, '' for a root."),
        _text("trace_state", "W3C tracestate as sent."),
        _count("flags", "OTLP span flags as sent."),
        Column("start_time", "DateTime64(9, 'UTC')", _NANOS, "Start of the span.", "Delta, ZSTD(1)"),
        Column(
            "duration_ns", "UInt64", pa.uint64(), "End minus start, 0 where the end lies before it.", "T64, ZSTD(1)"
        ),
        _lc("time_flag", "'' or why the times are not to be trusted: zero, ancient, future, inverted."),
        _lc("service", "Resource attribute `service.name`."),
        _lc("service_version", "Resource attribute `service.version`."),
        _lc("scope", "Instrumentation scope name."),
        _lc("scope_version", "Instrumentation scope version."),
        _lc("name", "Span name as sent."),
        _lc("span_kind", "unspecified, internal, server, client, producer or consumer."),
        _lc("status", "unset, ok or error, as sent."),
        _text("status_message", "As sent."),
        _lc("dialect", "The instrumentation dialect that was recognised, '' for none."),
        _lc("operation", "Canonical `gen_ai.operation.name`, '' if none."),
        _lc("kind", "Class of span: llm, embedding, retrieval, tool, agent, workflow, chain, log ... '' if none."),
        _lc("provider", "Canonical `gen_ai.provider.name`."),
        _lc("request_model", "Canonical `gen_ai.request.model`."),
        _lc("response_model", "Canonical `gen_ai.response.model`."),
        _text("response_id", "Canonical `gen_ai.response.id`."),
        _lc("agent_name", "Canonical `gen_ai.agent.name`."),
        _text("agent_id", "Canonical `gen_ai.agent.id`: hosted agents only, never a run id."),
        _lc("agent_version", "Canonical `gen_ai.agent.version`."),
        _text(
            "conversation_id",
            "Canonical `gen_ai.conversation.id`, as stated on this span. `traces` has the inherited one.",
        ),
        _text("user_id", "`user.id`."),
        _lc("workflow_name", "Canonical `gen_ai.workflow.name`."),
        _lc("tool_name", "Canonical `gen_ai.tool.name`."),
        _text("tool_call_id", "Canonical `gen_ai.tool.call.id`."),
        _tokens("input_tokens", "All input tokens, cache reads and writes included. NULL is unknown."),
        _tokens("output_tokens", "All output tokens, reasoning included. NULL is unknown."),
        _tokens("cache_read_tokens", "Part of `input_tokens` read from a cache."),
        _tokens("cache_write_tokens", "Part of `input_tokens` written to a cache."),
        _tokens("reasoning_tokens", "Part of `output_tokens` spent on reasoning."),
        _lc("usage_scope", "own: sum it. aggregate: repeats other spans, never sum it. none: no usage here."),
        _lc(
            "usage_scope_reason",
            "Who decided `usage_scope`. '': the dialect's table, for good. tentative: the table, and the trace may say "
            "otherwise. descendant: a span below reports this usage. repeat: another span reports the same call.",
        ),
        _lc(
            "input_basis",
            "What was done to reach the inclusive input: inclusive, exclusive_fixed, exclusive_unknown, unknown.",
        ),
        Column(
            "cost_usd", "Nullable(Decimal(18, 9))", _MONEY, "Our price of the usage in USD, NULL = unpriced.", "ZSTD(1)"
        ),
        _lc("cost_source", "Where `cost_usd` comes from: genai-prices, override, unknown_model, or ''."),
        Column(
            "reported_cost_usd",
            "Nullable(Decimal(18, 9))",
            _MONEY,
            "The cost the producer reported, in USD.",
            "ZSTD(1)",
        ),
        Column(
            "time_to_first_chunk_s",
            "Nullable(Float64)",
            pa.float64(),
            "Canonical `gen_ai.response.time_to_first_chunk`.",
            "ZSTD(1)",
        ),
        Column(
            "finish_reasons",
            "Array(LowCardinality(String))",
            pa.list_(pa.utf8()),
            "stop, length, content_filter, tool_call, error, compaction.",
        ),
        Column(
            "finish_reasons_raw",
            "Array(LowCardinality(String))",
            pa.list_(pa.utf8()),
            "The same in the producer's spelling.",
        ),
        _lc("error_type", "Canonical `error.type`, '' if the span did not fail."),
        _lc("tool_status", "success or error as the producer stated it, even where the span status differs."),
        _text("input_preview", "First 200 characters of what went in: the newest user message, or the tool arguments."),
        _text("output_preview", "First 200 characters of what came out."),
        Column(
            "fingerprint",
            "String",
            pa.binary(),
            "What detectors see of a GenAI span or a root: hashes, classes and token sketches of what went in and came "
            "out, never text. '' for other spans. Layout: `FINGERPRINT` in `processors/detect/steps.py`.",
            "ZSTD(1)",
        ),
        Column(
            "content",
            "Array(Tuple(key LowCardinality(String), form LowCardinality(String), hash String, bytes UInt32))",
            _CONTENT,
            "References into `content`, in order. A canonical value stands under its name; an original value that was "
            "cut, under its place: `attributes.<key>`, `events[<index>].<key>`, `links[<index>].<key>`, "
            "`resource.<key>` or `scope.<key>`. form text: the value itself. form item: an element of the JSON array "
            "of that key; the elements joined by ',' inside '[]' are the value. form item_sp: the same, joined by ', '.",
            "ZSTD(1)",
        ),
        Column(
            "attributes",
            _LC_MAP,
            _MAP,
            "Every original attribute, then canonical ones that have no column. Values over 256 bytes are cut to 200 "
            "characters here and whole in `content`. Times that do not fit or make no sense are kept as "
            "`spanwise.start_time_unix_nano` and `spanwise.end_time_unix_nano`.",
            "ZSTD(1)",
        ),
        _text(
            "attribute_types",
            "One letter an entry of `attributes`: s string, b bool, i int, d double, a array, k key-value list, y bytes "
            "(hex), n empty. Upper case: derived by Spanwise, not sent.",
        ),
        Column("resource_attributes", _LC_MAP, _MAP, "Resource attributes, cut as `attributes`.", "ZSTD(1)"),
        Column("scope_attributes", _LC_MAP, _MAP, "Instrumentation scope attributes, cut likewise.", "ZSTD(1)"),
        Column(
            "events",
            "Array(Tuple(time DateTime64(9, 'UTC'), name LowCardinality(String), "
            "attributes Map(LowCardinality(String), String), types String))",
            _EVENTS,
            "Span events in order, big values cut as in `attributes`.",
            "ZSTD(1)",
        ),
        Column(
            "links",
            "Array(Tuple(trace_id String, span_id String, trace_state String, attributes Map(LowCardinality(String), String)))",
            _LINKS,
            "Span links in order, big values cut as in `attributes`.",
            "ZSTD(1)",
        ),
        _count("dropped_attributes_count", "As sent."),
        _count("dropped_events_count", "As sent."),
        _count("dropped_links_count", "As sent."),
        _lc("schema_url", "Schema URL of the scope, or else of the resource."),
        _DAY,
        _RECEIVED,
        _VERSION,
    ),
    order_by=("tenant", "toStartOfMinute(start_time)", "trace_id", "span_id"),
    version="version",
)

CONTENT: Final = Table(
    "content",
    "Each distinct large value and chat message, once per trace and day.",
    (
        _TENANT,
        _TRACE_ID,
        _text("hash", "32 hex digits: 128-bit XXH3 of `value`."),
        Column("value", "String", pa.large_utf8(), "The text itself, whole.", "ZSTD(1)"),
        _DAY,
        _RECEIVED,
    ),
    order_by=("tenant", "trace_id", "hash"),
)

_CANONICAL_IN_LOGS: Final = (
    "operation",
    "kind",
    "provider",
    "request_model",
    "response_model",
    "response_id",
    "agent_name",
    "conversation_id",
    "user_id",
    "tool_name",
    "tool_call_id",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_basis",
    "reported_cost_usd",
    "finish_reasons",
    "finish_reasons_raw",
    "error_type",
    "tool_status",
    "input_preview",
    "output_preview",
    "content",
)
"""What a log record may contribute to its span, with the meaning it has there."""

LOG_EVENTS: Final = Table(
    "log_events",
    "OTLP log records that carry GenAI content, cost or usage, normalised like spans and kept to be joined to them.",
    (
        _TENANT,
        _TRACE_ID,
        _text("span_id", "16 hex digits, '' where the record names no span."),
        Column(
            "time",
            "DateTime64(9, 'UTC')",
            _NANOS,
            "Time of the record, or the observed time where it has none.",
            "Delta, ZSTD(1)",
        ),
        _lc("event_name", "EventName, or the attribute `event.name`."),
        _count("severity", "OTLP severity number."),
        _lc("service", "Resource attribute `service.name`."),
        _lc("scope", "Instrumentation scope name."),
        _lc("dialect", "The instrumentation dialect that was recognised."),
        *(column for column in SPANS.columns if column.name in _CANONICAL_IN_LOGS),
        _text("body", "Body: text as sent, anything else as JSON."),
        Column("attributes", _LC_MAP, _MAP, "Every attribute, whole.", "ZSTD(1)"),
        _text("attribute_types", "As in `spans`."),
        Column("resource_attributes", _LC_MAP, _MAP, "Resource attributes as sent.", "ZSTD(1)"),
        _text("record_id", "32 hex digits: hash of the record, so that a repeated delivery is one row."),
        _DAY,
        _RECEIVED,
    ),
    order_by=("tenant", "trace_id", "span_id", "record_id"),
)

TRACES: Final = Table(
    "traces",
    "One summary a trace, recounted from its deduplicated spans whenever they change. Read it with `FINAL`.",
    (
        _TENANT,
        _TRACE_ID,
        Column("start_time", "DateTime64(9, 'UTC')", _NANOS, "Earliest start of its spans.", "Delta, ZSTD(1)"),
        Column("duration_ns", "UInt64", pa.uint64(), "Latest end minus earliest start.", "T64, ZSTD(1)"),
        _text("root_span_id", "Span without a parent that starts first, '' while it has not arrived."),
        _lc("root_name", "Name of that span, or of the earliest one while the root has not arrived."),
        Column("services", "Array(LowCardinality(String))", pa.list_(pa.utf8()), "Services, sorted."),
        Column("agents", "Array(LowCardinality(String))", pa.list_(pa.utf8()), "Agent names, sorted."),
        Column(
            "models", "Array(LowCardinality(String))", pa.list_(pa.utf8()), "Models (response, else request), sorted."
        ),
        Column("tools", "Array(LowCardinality(String))", pa.list_(pa.utf8()), "Tool names, sorted."),
        _text("conversation_id", "Of any of its spans: the one of the span nearest the root."),
        _text("user_id", "Likewise."),
        _lc("workflow_name", "Likewise."),
        _count("span_count", "Distinct spans."),
        _count("llm_calls", "Model calls: spans of kind llm that are not the repeat of another."),
        _count("tool_calls", "Spans of kind tool."),
        _count("error_count", "Spans with status error or an error type."),
        Column("input_tokens", "UInt64", pa.uint64(), "Sum over usage_scope own."),
        Column("output_tokens", "UInt64", pa.uint64(), "Sum over usage_scope own."),
        Column("cache_read_tokens", "UInt64", pa.uint64(), "Sum over usage_scope own."),
        Column("cache_write_tokens", "UInt64", pa.uint64(), "Sum over usage_scope own."),
        Column("reasoning_tokens", "UInt64", pa.uint64(), "Sum over usage_scope own."),
        Column("cost_usd", "Decimal(18, 9)", _MONEY, "Sum over usage_scope own, USD."),
        Column("reported_cost_usd", "Decimal(18, 9)", _MONEY, "Sum over usage_scope own, USD."),
        _count("unpriced_calls", "Spans with usage_scope own and usage, but no price."),
        Column(
            "work",
            "Array(Tuple(minute DateTime('UTC'), service LowCardinality(String), agent_name LowCardinality(String), agent_version LowCardinality(String), caller LowCardinality(String), kind LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), tool_name LowCardinality(String), calls UInt32, errors UInt32, tool_errors UInt32, input_tokens UInt64, output_tokens UInt64, cache_read_tokens UInt64, cache_write_tokens UInt64, reasoning_tokens UInt64, cost_usd Decimal(18, 9), unpriced_calls UInt32, duration_ns UInt64))",
            _WORK,
            "What was done and used, by minute, agent, model and tool. A span that names no agent belongs to its nearest "
            "ancestor that does; `caller` is the agent that an agent was started by. Read the view `rollup_agents`.",
            "ZSTD(1)",
        ),
        Column(
            "findings",
            "Array(LowCardinality(String))",
            pa.list_(pa.utf8()),
            "Failure signatures found, `signature` or `signature.kind`, sorted. The rows are in `findings`.",
        ),
        _lc("finding_severity", "The worst of them: info, warning, high or critical; '' for none."),
        _lc(
            "partial",
            "'' for a trace that was decided as a whole. `oversized` or `failed`: its figures are sums of its spans as "
            "they were stored, see docs/usage-scope.md.",
        ),
        _DAY,
        _RECEIVED,
        Column("version", "UInt64", pa.uint64(), "Grows with every recount.", "ZSTD(1)"),
    ),
    order_by=("tenant", "trace_id"),
    version="version",
)

FINDINGS: Final = Table(
    "findings",
    "One row a failure found in a trace, written again when it grows. Read it with `FINAL`.",
    (
        _TENANT,
        _TRACE_ID,
        _text("finding_id", "32 hex digits: hash of tenant, trace, signature, kind and first span. Never changes."),
        _lc("signature", "What was found: retry_loop, tool_error, context_limit ... See docs/signatures."),
        _lc("kind", "Which kind of it, '' where a signature has one kind."),
        _lc("severity", "info, warning, high or critical."),
        _lc("basis", "exact: the spans prove it. proxy: a hint that needs a look."),
        _lc("service", "Service of the first span."),
        _lc("agent_name", "Agent of the first span: its own or its nearest ancestor's."),
        _lc("agent_version", "Version of that agent."),
        _lc("tool_name", "Tool of the first span that has one."),
        _lc("model", "Model of the first span that has one: response, else request."),
        _text("conversation_id", "Conversation of the first span that has one."),
        _text("first_span_id", "The span that anchors the finding."),
        _text("last_span_id", "The last span that shows it."),
        Column("span_ids", "Array(String)", pa.list_(pa.utf8()), "The spans that show it, in order.", "ZSTD(1)"),
        _count("count", "How often it happened: repetitions, errors, calls."),
        Column("wasted_tokens", "UInt64", pa.uint64(), "Own tokens of the spans that were for nothing.", "ZSTD(1)"),
        Column("wasted_cost_usd", "Decimal(18, 9)", _MONEY, "Their own cost, USD, as far as it is known.", "ZSTD(1)"),
        Column(
            "evidence",
            "Map(LowCardinality(String), String)",
            _MAP,
            "The numbers that made it fire, and short excerpts named `<part> of <span id>`.",
            "ZSTD(1)",
        ),
        _count("rule_version", "Version of the signature's rule."),
        Column("started_at", "DateTime64(9, 'UTC')", _NANOS, "Start of the first span.", "Delta, ZSTD(1)"),
        Column("detected_at", "DateTime64(3, 'UTC')", _MILLIS, "When it was first found.", "Delta, ZSTD(1)"),
        _DAY,
        _RECEIVED,
        Column("version", "UInt64", pa.uint64(), "Grows each time the finding is written.", "ZSTD(1)"),
        Column("withdrawn", "UInt8", pa.uint8(), "1: spans that came late showed that it was none."),
    ),
    order_by=("tenant", "toStartOfHour(started_at)", "trace_id", "finding_id"),
    version="version",
    deleted="withdrawn",
)

ALERT_DELIVERIES: Final = Table(
    "alert_deliveries",
    "Which webhook was told about which finding, and how bad it was then. What is not here is still to be sent.",
    (
        _lc("webhook", "Name of the webhook in the configuration."),
        _text("finding_id", "As in `findings`; '' in the row that says since when the webhook is known."),
        _lc("severity", "Severity of the finding when it was sent. A finding that gets worse is sent again."),
        _lc(
            "outcome",
            "sent: alone. digest: in one message with others. rejected: the receiver will never take it. expired: it "
            "could not be sent in time. known: see `finding_id`.",
        ),
        _text("message", "`Idempotency-Key` of the message."),
        _lc("tenant", "As in `findings`."),
        Column("day", "Date", pa.date32(), "Partition: the UTC day of `received_at`."),
        Column(
            "received_at",
            "DateTime64(3, 'UTC')",
            _MILLIS,
            "When the receiver had answered, or the outcome was certain. TTLs count from here.",
            "Delta, ZSTD(1)",
        ),
    ),
    order_by=("webhook", "finding_id", "severity"),
    shard_by="cityHash64(finding_id)",
)


def _sum(name: str, doc: str) -> Column:
    return Column(name, "UInt64", pa.uint64(), doc, "T64, ZSTD(1)")


def _buckets(name: str, doc: str) -> Column:
    return Column(name, "Map(Int16, UInt64)", _BUCKETS, doc, "ZSTD(1)")


ROLLUP_1M: Final = Table(
    "rollup_1m",
    "Sums of one closed minute, recounted from its deduplicated GenAI spans whenever they change. Read the view "
    "`rollup`, which adds what is not counted yet.",
    (
        _TENANT,
        Column("minute", "DateTime('UTC')", pa.uint32(), "Start of the minute in which the spans started.", "ZSTD(1)"),
        _lc("service", "As in `spans`, like the other dimensions."),
        _lc("agent_name", "As the span states it."),
        _lc("agent_version", "Likewise."),
        _lc("operation", "Canonical `gen_ai.operation.name`."),
        _lc("kind", "Class of span."),
        _lc("provider", "Canonical `gen_ai.provider.name`."),
        _lc("model", "Model: response, else request."),
        _lc("tool_name", "Canonical `gen_ai.tool.name`."),
        _sum("spans", "Distinct spans. 0: the group was counted once and has vanished since; the views leave it out."),
        _sum("calls", "Spans that are not the repeat of another span's model call."),
        _sum("errors", "The part of the calls with status error or an error type."),
        _sum("tool_errors", "The part of the calls of kind tool that failed: as the producer says, else as `errors`."),
        _sum("input_tokens", "Sum over usage_scope own, like the other tokens."),
        _sum("output_tokens", "Reasoning included."),
        _sum("cache_read_tokens", "Part of `input_tokens`."),
        _sum("cache_write_tokens", "Part of `input_tokens`."),
        _sum("reasoning_tokens", "Part of `output_tokens`."),
        Column(
            "cost_usd",
            "Decimal(38, 9)",
            pa.decimal128(38, 9),
            "Sum over usage_scope own, USD: stored as the exact number of 10⁻⁹ USD.",
            "ZSTD(1)",
        ),
        _sum("unpriced_calls", "Spans with usage_scope own and usage, but no price."),
        _buckets(
            "duration_buckets",
            "Durations of the calls: how many lie in bucket b, which holds nanoseconds above 1.02^(b-1) up to 1.02^b. "
            "`sumMap` merges them exactly; a quantile is at most 1 % off.",
        ),
        _buckets("first_chunk_buckets", "The same for the time to the first chunk, where it is known."),
        Column("day", "Date", pa.date32(), "Partition: the UTC day of the minute."),
        Column(
            "received_at",
            "DateTime64(3, 'UTC')",
            _MILLIS,
            "Receipt of the first span counted. TTLs count from here.",
            "Delta, ZSTD(1)",
        ),
        Column("version", "UInt64", pa.uint64(), "When the count began, ns: the last one has seen everything."),
    ),
    order_by=(
        "tenant",
        "minute",
        "service",
        "agent_name",
        "agent_version",
        "operation",
        "kind",
        "provider",
        "model",
        "tool_name",
    ),
    version="version",
    shard_by="cityHash64(tenant, minute)",
)

TABLES: Final = (SPANS, CONTENT, LOG_EVENTS, TRACES, FINDINGS, ALERT_DELIVERIES, ROLLUP_1M)
