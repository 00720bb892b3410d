"""The metrics of one process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from importlib import metadata
from typing import Any, Final, Literal, TypeVar

import prometheus_client
import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from spanwise.model import Signal, SpanBatch
from spanwise.telemetry import watched
from spanwise.telemetry.config import TelemetryConfig
from spanwise.telemetry.watched import AtScrape, Family, MetricDoc, Watched

Transport = Literal["grpc", "http"]
Stats = TypeVar("Stats")

OTHER: Final = "other"
"""Stands for every label value beyond the limit."""

_ACK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_WORK_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MODEL_KINDS: Final = ("llm", "embedding")
_TOKEN_TYPES: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
}
_GEN_AI_LABELS: Final = ("service", "agent", "model", "operation")
_FINDING_LABELS: Final = ("signature", "kind", "severity", "service", "agent")

# The `_created` series double the number of series and no dashboard of ours reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class LabelLimit:
    """Lets the first `values_max` distinct values of one label through and turns the rest into `other`."""

    def __init__(self, values_max: int, bytes_max: int, overflow: Callable[[], None]) -> None:
        self._values_max = values_max
        self._bytes_max = bytes_max
        self._overflow = overflow
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        value = (value or "")[: self._bytes_max]
        if value in self._known:
            return value
        if len(self._known) < self._values_max:
            self._known.add(value)
            return value
        self._overflow()
        return OTHER


class SinkTelemetry:
    """What a sink reports, by table."""

    def __init__(
        self, *, seconds: Histogram, rows: Counter, bytes_: Counter, refused: Counter, reason: Callable[[str], str]
    ) -> None:
        self._seconds = seconds
        self._rows = rows
        self._bytes = bytes_
        self._refused = refused
        self._reason = reason

    def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None:
        self._seconds.labels(table).observe(seconds)
        self._rows.labels(table).inc(rows)
        self._bytes.labels(table).inc(bytes_)

    def refused(self, table: str, *, rows: int, reason: str) -> None:
        self._refused.labels(table, self._reason(reason)).inc(rows)


class Telemetry:
    """The metrics of one process.

    Methods are named after what happened and are safe to call from any thread. Durations are in seconds.
    """

    def __init__(self, config: TelemetryConfig | None = None, *, registry: CollectorRegistry | None = None) -> None:
        self.config = config or TelemetryConfig()
        self.registry = registry or CollectorRegistry()
        self.reference: list[MetricDoc] = []

        self._build = Info("spanwise_build", "Version of the program.", registry=self.registry)
        self._build.info({"version": version(), "python": sys.version.split()[0]})
        self.reference.append(MetricDoc("spanwise_build_info", "gauge", ("version", "python"), "Version, always 1."))

        self._overflow = self._counter(
            "label_overflow", ("label",), "Times a label value became `other` because its limit was reached."
        )
        self._reason = LabelLimit(self.config.label_values_max, 64, self._overflow.labels("reason").inc)

        request = ("signal", "transport")
        self._accepted = self._counter(
            "receiver_accepted_items", request, "Spans or log records acknowledged: the journal has them."
        )
        self._refused = self._counter(
            "receiver_refused_items", (*request, "reason"), "Items turned away for now; the sender keeps them."
        )
        self._rejected = self._counter(
            "receiver_rejected_items", (*request, "reason"), "Items that can never be accepted; the sender was told."
        )
        self._refused_requests = self._counter(
            "receiver_refused_requests", (*request, "reason"), "Requests turned away for now."
        )
        self._rejected_requests = self._counter(
            "receiver_rejected_requests", (*request, "reason"), "Requests that can never be accepted as a whole."
        )
        self._received_bytes = self._counter(
            "receiver_received_bytes", request, "Bytes of accepted requests, after decompression."
        )
        self._inflight = self._gauge("receiver_inflight_bytes", (), "Bytes of requests being received now.")
        self._ack = self._histogram(
            "receiver_ack_seconds", request, "From the last byte of a request to its durable answer.", _ACK_BUCKETS
        )
        self._decode = self._histogram("decode_seconds", (), "Decoding and normalising one range.", _WORK_BUCKETS)
        self._decoded_requests = self._counter("decode_requests", (), "Requests decoded.")
        self._decoded = self._counter("decode_spans", (), "Spans decoded.")
        self._decode_rejected = self._counter(
            "decode_rejected_items", (), "Spans or log records that could not be decoded after acceptance."
        )
        self._logs_ignored = self._counter("decode_ignored_logs", (), "Log records without GenAI meaning, not kept.")
        self._decoded_bytes = self._counter("decode_bytes", (), "Bytes of requests decoded.")
        self._process = self._histogram("process_seconds", (), "One batch through all processors.", _WORK_BUCKETS)
        self._store = self._histogram("store_seconds", (), "Storing one range in all its tables.", _WORK_BUCKETS)
        self._stored_spans = self._counter("stored_spans", (), "Spans stored, as far as this process handed them on.")
        self.sink = SinkTelemetry(
            seconds=self._histogram("insert_seconds", ("table",), "One insert into one table.", _WORK_BUCKETS),
            rows=self._counter("insert_rows", ("table",), "Rows inserted, corrections and summaries included."),
            bytes_=self._counter("insert_bytes", ("table",), "Arrow bytes of these rows."),
            refused=self._counter("insert_refused_rows", ("table", "reason"), "Rows the store will never take."),
            reason=self._reason,
        )
        self._insert_errors = self._counter("insert_errors", ("reason",), "Attempts to store a range that failed.")
        self._dead_letters = self._counter(
            "dead_letter_requests", ("reason",), "Requests set aside as files: they cannot be decoded or stored."
        )
        for reason in ("decode", "rows", "store"):
            self._dead_letters.labels(self._reason(reason))
        self._reconcile = self._histogram("reconcile_seconds", (), "One round of trace reconciliation.", _WORK_BUCKETS)
        self._reconciled = self._counter("reconcile_traces", (), "Traces recounted.")
        self._reconcile_errors = self._counter(
            "reconcile_errors", (), "Rounds of trace reconciliation that failed and are tried again."
        )
        self._unpriced = self._counter(
            "price_unpriced_spans", (), "Spans with usage of a model whose price is unknown."
        )

        approximate = "Approximate, per process: `spans` and `traces` in the store have the truth."
        self._tokens = self._counter(
            "gen_ai_tokens", (*_GEN_AI_LABELS, "type"), f"Tokens of spans with usage_scope own. {approximate}"
        )
        self._cost = self._counter(
            "gen_ai_cost_usd", _GEN_AI_LABELS, f"Priced cost of spans with usage_scope own, USD. {approximate}"
        )
        self._calls = self._counter(
            "gen_ai_calls",
            _GEN_AI_LABELS,
            f"Spans with an operation, without model calls that repeat another span (aggregate). {approximate}",
        )
        self._errors = self._counter(
            "gen_ai_errors", _GEN_AI_LABELS, f"The part of the calls that failed. {approximate}"
        )
        self._limits = {
            label: LabelLimit(
                self.config.label_values_max,
                self.config.label_bytes_max,
                self._overflow.labels(label).inc,
            )
            for label in _GEN_AI_LABELS
        }
        self._series: set[tuple[str, ...]] = set()

        self._count_findings()
        self._count_queries()

        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self.reference.append(
            MetricDoc("process_*, python_gc_*", "gauge, counter", (), "Standard process and garbage collector figures.")
        )
        self.reference.extend(watched.REFERENCE)

    def _count_findings(self) -> None:
        self._signature = LabelLimit(self.config.label_values_max, 64, self._overflow.labels("signature").inc)
        self._findings = self._counter(
            "findings", _FINDING_LABELS, "Findings written for the first time. The rows are in `findings`."
        )
        self._findings_written = self._counter(
            "findings_written",
            _FINDING_LABELS,
            "Times a finding was written: when it was found, and again when it grew or got worse. `quality_drift` is "
            "written again as long as it lasts.",
        )
        per_agent = ("signature", "service", "agent")
        counted = "as findings grow; a span that two signatures blame counts for both."
        self._wasted_tokens = self._counter("wasted_tokens", per_agent, f"Tokens spent for nothing, {counted}")
        self._wasted_cost = self._counter("wasted_cost_usd", per_agent, f"Cost of work that was for nothing, {counted}")
        self._finding_series: set[tuple[str, ...]] = set()
        self._signature_failures = self._counter(
            "detect_signature_failures", ("signature",), "Traces a signature could not examine because it raised."
        )

    def _count_queries(self) -> None:
        self._clickhouse_seconds = self._histogram(
            "clickhouse_query_seconds",
            (),
            "Queries at the ClickHouse endpoint, until their answer was taken.",
            _WORK_BUCKETS,
        )
        self._clickhouse_outcomes = self._counter(
            "clickhouse_queries",
            ("outcome",),
            "Queries at the ClickHouse endpoint: `ok`, `left` by the client, or the name of ClickHouse's error.",
        )
        self._clickhouse_running = self._gauge("clickhouse_queries_running", (), "Queries that run there now.")
        self._clickhouse_waiting = self._gauge(
            "clickhouse_queries_waiting", (), "Queries that wait for their turn there."
        )
        self._clickhouse_connections = self._counter(
            "clickhouse_refused_connections", ("reason",), "Connections to the ClickHouse endpoint closed unanswered."
        )
        self._outcome = LabelLimit(self.config.label_values_max, 64, self._overflow.labels("outcome").inc)

    # Receiver

    def accepted(self, signal: Signal, transport: Transport, items: int, body_bytes: int, seconds: float) -> None:
        """An acknowledged request: its items, decompressed bytes and the seconds until the answer."""
        self._accepted.labels(signal, transport).inc(items)
        self._received_bytes.labels(signal, transport).inc(body_bytes)
        self._ack.labels(signal, transport).observe(seconds)

    def refused(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None:
        """A request turned away with a retryable answer. `items` is 0 where they were not counted yet."""
        self._refused_requests.labels(signal, transport, self._reason(reason)).inc()
        self._refused.labels(signal, transport, self._reason(reason)).inc(items)

    def rejected(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None:
        """A request turned away for good. `reason` is a fixed word, never text of the payload."""
        self._rejected_requests.labels(signal, transport, self._reason(reason)).inc()
        self._rejected.labels(signal, transport, self._reason(reason)).inc(items)

    def rejected_items(self, signal: str, transport: Transport, reason: str, items: int) -> None:
        """Items of an accepted request that were left out (partial success)."""
        self._rejected.labels(signal, transport, self._reason(reason)).inc(items)

    def inflight_bytes(self, value: int) -> None:
        self._inflight.set(value)

    # Journal

    def watch_journal(self, journal: Watched[watched.JournalFigures]) -> None:
        """Read the journal's own figures at each scrape."""
        self._watch(journal, watched.journal)

    def watch_kafka(self, journal: Watched[watched.KafkaFigures]) -> None:
        """Read the Kafka journal's own figures at each scrape."""
        self._watch(journal, watched.kafka)

    def watch_reconciler(self, reconciler: Watched[object]) -> None:
        """Read the reconciler's own figures at each scrape."""
        self._watch(reconciler, watched.reconciler)

    def watch_detector(self, detector: Watched[object]) -> None:
        """Read the detector's own figures at each scrape."""
        self._watch(detector, watched.detector)

    def watch_alerts(self, alerts: Watched[Mapping[str, watched.AlertFigures]]) -> None:
        """Read the figures of the webhooks at each scrape."""
        self._watch(alerts, watched.alerts)

    def watch_budgets(self, budgets: Watched[watched.BudgetsFigures]) -> None:
        """Read the figures of budgets at each scrape."""
        self._watch(budgets, watched.budgets)

    def watch_rollups(self, rollups: Watched[object]) -> None:
        """Read the figures of rollups at each scrape."""
        self._watch(rollups, watched.rollups)

    def watch_retention(self, retention: Watched[object]) -> None:
        """Read the figures of what keeps failed traces at each scrape."""
        self._watch(retention, watched.retention)

    def watch_price(self, price: Watched[object]) -> None:
        """Read the figures of what prices spans at each scrape."""
        self._watch(price, watched.price)

    def _watch(self, part: Watched[Stats], families: Callable[[Stats], Iterable[Family]]) -> None:
        self.registry.register(AtScrape(lambda: families(part.stats())))

    # Pipeline

    def decoded(
        self, *, frames: int, bytes_: int, spans: int, rejected: int, ignored_logs: int, seconds: float
    ) -> None:
        """A range of `frames` requests was decoded."""
        self._decode.observe(seconds)
        self._decoded_requests.inc(frames)
        self._decoded_bytes.inc(bytes_)
        self._decoded.inc(spans)
        self._decode_rejected.inc(rejected)
        self._logs_ignored.inc(ignored_logs)

    def processed(self, spans: SpanBatch, *, seconds: float) -> None:  # noqa: ARG002
        """A batch went through all processors."""
        self._process.observe(seconds)

    def inserted(self, *, spans: int, content: int, log_events: int, seconds: float) -> None:  # noqa: ARG002
        """A range is stored in all tables; `sink` counts the rows of each."""
        self._store.observe(seconds)
        self._stored_spans.inc(spans)

    def insert_failed(self, *, reason: str) -> None:
        self._insert_errors.labels(self._reason(reason)).inc()

    def dead_lettered(self, *, frames: int, reason: str) -> None:
        self._dead_letters.labels(self._reason(reason)).inc(frames)

    def reconciled(self, traces: int, seconds: float) -> None:
        self._reconcile.observe(seconds)
        self._reconciled.inc(traces)

    def reconcile_failed(self) -> None:
        self._reconcile_errors.inc()

    def found(self, *, signature: str, kind: str, severity: str, service: str, agent: str) -> None:
        """A finding was written for the first time."""
        labels = self._finding_labels(signature, kind, severity, service, agent)
        self._findings.labels(*labels).inc()
        self._findings_written.labels(*labels).inc()

    def grew(self, *, signature: str, kind: str, severity: str, service: str, agent: str) -> None:
        """A finding was written again because it counts more or is worse than before, or is still there."""
        self._findings_written.labels(*self._finding_labels(signature, kind, severity, service, agent)).inc()

    def wasted(self, *, signature: str, service: str, agent: str, tokens: int, cost_usd: Decimal) -> None:
        """What a finding wasted on top of what was counted for it before."""
        name, _, _, *owner = self._finding_labels(signature, "", "", service, agent)
        _add(self._wasted_tokens.labels(name, *owner), tokens)
        _add(self._wasted_cost.labels(name, *owner), float(cost_usd))

    def _finding_labels(self, signature: str, kind: str, severity: str, service: str, agent: str) -> tuple[str, ...]:
        what = (self._signature(signature), self._signature(kind), severity)
        labels = (*what, self._limits["service"](service), self._limits["agent"](agent))
        if labels in self._finding_series:
            return labels
        if len(self._finding_series) < self.config.findings_series_max:
            self._finding_series.add(labels)
            return labels
        self._overflow.labels("findings").inc()
        return (*what, OTHER, OTHER)

    def signature_failed(self, signature: str) -> None:
        self._signature_failures.labels(self._signature(signature)).inc()

    def count_gen_ai(self, batch: SpanBatch) -> None:
        """Count calls, errors, tokens and cost of a stored batch by service, agent, model and operation.

        A failed model call has no usage and still counts as a call; one that only repeats another span does not.
        """
        for group in _gen_ai_groups(batch):
            labels = self._labels([group[name] for name in _GEN_AI_LABELS])
            _add(self._calls.labels(*labels), group["calls_sum"])
            _add(self._errors.labels(*labels), group["errors_sum"])
            _add(self._cost.labels(*labels), group["cost_usd_sum"])
            _add(self._unpriced, group["unpriced_sum"])
            for type_, column in _TOKEN_TYPES.items():
                _add(self._tokens.labels(*labels, type_), group[f"{column}_sum"])

    # ClickHouse endpoint

    def queried(self, outcome: str, seconds: float) -> None:
        self._clickhouse_outcomes.labels(self._outcome(outcome)).inc()
        self._clickhouse_seconds.observe(seconds)

    def queries_running(self, running: int, waiting: int) -> None:
        self._clickhouse_running.set(running)
        self._clickhouse_waiting.set(waiting)

    def connection_refused(self, reason: str) -> None:
        """`reason` is a fixed word."""
        self._clickhouse_connections.labels(reason).inc()

    def _labels(self, values: Sequence[str | None]) -> tuple[str, ...]:
        labels = tuple(self._limits[name](value) for name, value in zip(_GEN_AI_LABELS, values, strict=True))
        if labels in self._series:
            return labels
        if len(self._series) < self.config.gen_ai_series_max:
            self._series.add(labels)
            return labels
        self._overflow.labels("series").inc()
        return (OTHER,) * len(_GEN_AI_LABELS)

    def exposition(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return prometheus_client.generate_latest(self.registry)

    def _counter(self, name: str, labels: Sequence[str], doc: str) -> Counter:
        self.reference.append(MetricDoc(f"spanwise_{name}_total", "counter", tuple(labels), doc))
        return Counter(f"spanwise_{name}", doc, labels, registry=self.registry)

    def _gauge(self, name: str, labels: Sequence[str], doc: str) -> Gauge:
        self.reference.append(MetricDoc(f"spanwise_{name}", "gauge", tuple(labels), doc))
        return Gauge(f"spanwise_{name}", doc, labels, registry=self.registry)

    def _histogram(self, name: str, labels: Sequence[str], doc: str, buckets: Sequence[float]) -> Histogram:
        self.reference.append(MetricDoc(f"spanwise_{name}", "histogram", tuple(labels), doc))
        return Histogram(f"spanwise_{name}", doc, labels, registry=self.registry, buckets=buckets)


def _gen_ai_groups(batch: SpanBatch) -> list[dict[str, Any]]:
    """One row for each (service, agent, model, operation) of the batch."""
    batch = batch.filter(pc.invert(_is(batch["operation"].cast(pa.utf8()), "")))
    if not batch.num_rows:
        return []
    text = {
        name: batch[name].cast(pa.utf8())
        for name in (
            "service", "agent_name", "request_model", "response_model", "operation", "kind", "usage_scope", "status",
            "error_type", "cost_source",
        )
    }  # fmt: skip
    own = _is(text["usage_scope"], "own")
    repeat = pc.and_(pc.is_in(text["kind"], value_set=pa.array(_MODEL_KINDS)), _is(text["usage_scope"], "aggregate"))
    call = pc.invert(repeat)
    failed = pc.or_(_is(text["status"], "error"), pc.invert(_is(text["error_type"], "")))
    # Doubles: a uint64 sum of hostile values would wrap.
    amounts = {
        name: pc.if_else(own, batch[name].cast(pa.float64(), safe=False), 0.0)
        for name in (*_TOKEN_TYPES.values(), "cost_usd")
    }
    amounts["calls"] = call.cast(pa.float64())
    amounts["errors"] = pc.and_(call, failed).cast(pa.float64())
    amounts["unpriced"] = pc.and_(own, _is(text["cost_source"], "unknown_model")).cast(pa.float64())
    model = pc.if_else(_is(text["response_model"], ""), text["request_model"], text["response_model"])
    keys = {"service": text["service"], "agent": text["agent_name"], "model": model, "operation": text["operation"]}
    table = pa.table(keys | amounts).group_by(list(_GEN_AI_LABELS), use_threads=False)
    grouped: list[dict[str, Any]] = table.aggregate([(name, "sum") for name in amounts]).to_pylist()
    return grouped


def _is(column: pa.Array[Any], value: str) -> pa.BooleanArray:
    return pc.equal(column, pa.scalar(value))


def _add(counter: Counter, value: float | None) -> None:
    # A counter refuses to sink, and one strange figure must not stop the batch.
    if value is not None and value > 0:
        counter.inc(value)


def version() -> str:
    """Version of the installed program."""
    try:
        return metadata.version("spanwise")
    except metadata.PackageNotFoundError:
        return "0+source"


# Logs
