"""What Spanwise says about itself: Prometheus metrics and structured logs.

A `Telemetry` owns its registry and is passed to whoever counts something; nothing here is global. Figures are per
process and start at zero with it. The `gen_ai` counters are approximate on purpose: they are taken from each batch
before late duplicates and trace-level corrections are known. The truth about money is in the store.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from typing import Any, Final, Literal, Protocol, TextIO

import prometheus_client
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field
from structlog.typing import EventDict, ExcInfo, Processor

from spanwise.model import Signal, SpanBatch

Transport = Literal["grpc", "http"]
LogLevel = Literal["debug", "info", "warning", "error"]

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
_LOG_TEXT_MAX: Final = 200

# The `_created` series double the number of series and no dashboard of ours reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class TelemetryConfig(BaseModel):
    """Metrics and logs of the process itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label_values_max: int = Field(
        200, ge=1, description="Distinct values kept of each gen_ai label; later ones are counted as `other`."
    )
    label_bytes_max: int = Field(128, ge=8, description="Longer label values are cut to this many characters.")
    gen_ai_series_max: int = Field(
        2_000, ge=1, description="Distinct combinations of the gen_ai labels; later ones are counted as `other`."
    )
    findings_series_max: int = Field(
        2_000, ge=1, description="The same for the labels of findings; later ones keep signature, kind and severity."
    )
    log_level: LogLevel = Field("info", description="Least severe log line that is written.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is `console` on a terminal and `json` elsewhere."
    )


class JournalFigures(Protocol):
    """What a journal says about itself, as far as its metrics need it; counters run from the start of the process."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused requests by reason."""


class WatchedJournal(Protocol):
    """A journal that can be asked for figures. They are those of `_JOURNAL_METRICS`, and `refused`."""

    def stats(self) -> JournalFigures: ...


class KafkaFigures(Protocol):
    """What a Kafka journal says about itself, beside the figures of `_KAFKA_METRICS`."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused requests by reason."""

    @property
    def lag(self) -> Mapping[tuple[str, int], int]:
        """Records that are not stored yet, by topic and partition."""


class WatchedKafka(Protocol):
    """A Kafka journal that can be asked for figures."""

    def stats(self) -> KafkaFigures: ...


class WatchedPart(Protocol):
    """A part that can be asked for figures: those of its table of metrics below."""

    def stats(self) -> object: ...


class AlertFigures(Protocol):
    """What a webhook says about itself, beside the figures of `_ALERT_METRICS`."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed attempts by reason."""


class WatchedAlerts(Protocol):
    """Webhooks that can be asked for figures."""

    def stats(self) -> Mapping[str, AlertFigures]: ...


class BudgetFigures(Protocol):
    """One budget, in its unit."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def limit(self) -> float: ...
    @property
    def spent(self) -> float: ...
    @property
    def forecast(self) -> float: ...
    @property
    def used_ratio(self) -> float: ...


class BudgetsFigures(Protocol):
    """All budgets, and how looking at them goes."""

    @property
    def budgets(self) -> Sequence[BudgetFigures]: ...
    @property
    def looked_at_s(self) -> float: ...
    @property
    def failures(self) -> int: ...


class WatchedBudgets(Protocol):
    """Budgets that can be asked for figures."""

    def stats(self) -> BudgetsFigures: ...


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


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One line of the metric reference."""

    name: str
    type: str
    labels: tuple[str, ...]
    doc: str


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
        self.reference.extend(_WATCHED_REFERENCE)

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

    def watch_journal(self, journal: WatchedJournal) -> None:
        """Read the journal's own figures at each scrape."""
        self.registry.register(_JournalCollector(journal))

    def watch_kafka(self, journal: WatchedKafka) -> None:
        """Read the Kafka journal's own figures at each scrape."""
        self.registry.register(_KafkaCollector(journal))

    def watch_reconciler(self, reconciler: WatchedPart) -> None:
        """Read the reconciler's own figures at each scrape."""
        self.registry.register(_PartCollector(reconciler, _RECONCILER_METRICS))

    def watch_detector(self, detector: WatchedPart) -> None:
        """Read the detector's own figures at each scrape."""
        self.registry.register(_PartCollector(detector, _DETECTOR_METRICS))

    def watch_alerts(self, alerts: WatchedAlerts) -> None:
        """Read the figures of the webhooks at each scrape."""
        self.registry.register(_AlertsCollector(alerts))

    def watch_budgets(self, budgets: WatchedBudgets) -> None:
        """Read the figures of budgets at each scrape."""
        self.registry.register(_BudgetsCollector(budgets))

    def watch_rollups(self, rollups: WatchedPart) -> None:
        """Read the figures of rollups at each scrape."""
        self.registry.register(_PartCollector(rollups, _ROLLUPS_METRICS))

    def watch_retention(self, retention: WatchedPart) -> None:
        """Read the figures of what keeps failed traces at each scrape."""
        self.registry.register(_PartCollector(retention, _RETENTION_METRICS))

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


_JOURNAL_METRICS: Final = (
    ("frames_pending", "journal_depth_requests", "gauge", "Requests that are durable and not yet taken out."),
    ("ranges_open", "journal_open_ranges", "gauge", "Ranges that are taken out and not yet stored."),
    ("oldest_age_s", "journal_oldest_age_seconds", "gauge", "Age of the oldest request that is not yet stored."),
    ("waiting_bytes", "journal_waiting_bytes", "gauge", "Bytes of requests that wait for their commit."),
    ("bytes", "journal_bytes", "gauge", "Size of the journal on disk."),
    ("bytes_max", "journal_bytes_max", "gauge", "Size at which the journal refuses requests."),
    ("disk_free_bytes", "journal_disk_free_bytes", "gauge", "Free space of the disk the journal is on."),
    ("disk_floor_bytes", "journal_disk_floor_bytes", "gauge", "Free space below which the journal refuses requests."),
    ("files", "journal_files", "gauge", "Files of the journal."),
    ("commits", "journal_commits", "counter", "Commits, each of one or more requests."),
    ("commit_seconds", "journal_commit_seconds", "counter", "Time spent in commits."),
    ("frames_committed", "journal_committed_requests", "counter", "Requests made durable."),
    ("bytes_committed", "journal_committed_bytes", "counter", "Bytes of these requests."),
    ("cache_misses", "journal_cache_misses", "counter", "Ranges that had to be read back from disk."),
    ("damaged_files", "journal_damaged_files", "counter", "Journal files set aside because they could not be read."),
    ("frames_salvaged", "journal_salvaged_requests", "counter", "Requests saved from damaged files."),
    ("frames_lost", "journal_lost_requests", "counter", "Requests that could not be saved from damaged files."),
)
_KAFKA_METRICS: Final = (
    ("up", "kafka_up", "gauge", "1 while requests go to the brokers, 0 while they are refused or go to the spool."),
    ("waiting_bytes", "kafka_waiting_bytes", "gauge", "Bytes of requests that wait for the brokers."),
    ("requests", "kafka_requests", "counter", "Requests made durable."),
    ("request_bytes", "kafka_request_bytes", "counter", "Bytes of these requests."),
    ("request_seconds", "kafka_request_seconds", "counter", "Time until they were durable, added up."),
    ("messages", "kafka_messages", "counter", "Messages acknowledged by the brokers."),
    ("producer_rebuilds", "kafka_producer_rebuilds", "counter", "Times the producer failed and was built anew."),
    ("spooled", "kafka_spooled_requests", "counter", "Requests that went to the spool."),
    ("drained", "kafka_drained_requests", "counter", "Requests sent from the spool to the brokers."),
    ("left_out", "kafka_left_out_items", "counter", "Spans or log records too large for a message even when cut."),
    ("partitions", "kafka_assigned_partitions", "gauge", "Partitions that this worker reads."),
    ("held_records", "kafka_held_records", "gauge", "Records that were read and are not taken out yet."),
    ("ranges_open", "kafka_open_ranges", "gauge", "Ranges that are taken out and not yet stored."),
    ("oldest_age_s", "kafka_oldest_age_seconds", "gauge", "Age of the oldest record that was read and not taken out."),
    ("ranges", "kafka_ranges", "counter", "Ranges taken out."),
    ("ranges_resumed", "kafka_resumed_ranges", "counter", "The part of them that somebody else had begun."),
    ("commits", "kafka_commits", "counter", "Offset commits."),
    ("rebalances", "kafka_rebalances", "counter", "Times partitions were assigned to this worker."),
    ("consumer_rebuilds", "kafka_consumer_rebuilds", "counter", "Times the reader failed and was built anew."),
    ("dead_letters", "kafka_dead_letters", "counter", "Records set aside before they were decoded."),
    (
        "expired",
        "kafka_expired_ranges",
        "counter",
        "Ranges whose records the broker had deleted before they came back.",
    ),
)
_KAFKA_LAG: Final = ("kafka_lag_records", "Records that are not stored yet.")
_KAFKA_REFUSED: Final = ("kafka_refused_requests", "Requests refused: the brokers are away, or too much waits.")
_RECONCILER_METRICS: Final = (
    ("dirty", "reconcile_dirty_traces", "gauge", "Traces that wait to be decided, as far as memory knows them."),
    ("lag_s", "reconcile_lag_seconds", "gauge", "How long the oldest of these has been waiting."),
    ("spilled", "reconcile_spilled", "gauge", "1 while more traces wait than memory holds; they are found again."),
    ("cached_rows", "reconcile_cached_spans", "gauge", "Spans held in memory until their trace is decided."),
    ("read_back", "reconcile_read_back_traces", "counter", "Traces that had to be read from the store."),
    ("corrections", "reconcile_corrected_spans", "counter", "Spans stored again with a correction."),
    ("joined", "reconcile_joined_logs", "counter", "Log records joined to a span, whenever their trace was decided."),
    (
        "unjoined",
        "reconcile_unjoined_logs",
        "counter",
        "Log records no span was found for when their trace was decided.",
    ),
)
_DETECTOR_METRICS: Final = (
    ("open_traces", "detect_open_traces", "gauge", "Traces whose steps are held in memory."),
    ("state_bytes", "detect_state_bytes", "gauge", "Memory these take."),
    ("evicted", "detect_evicted_traces", "counter", "Open traces let go for want of memory; they are read back."),
    ("late", "detect_late_spans", "counter", "Spans that came for traces that memory did not hold any more."),
    ("traces", "detect_examined_traces", "counter", "Traces examined, each time counted."),
    ("steps", "detect_examined_steps", "counter", "Steps of them, each time counted."),
    ("seconds", "detect_seconds", "counter", "Time spent on detection."),
    ("withdrawn", "detect_withdrawn_findings", "counter", "Findings taken back because of spans that came late."),
)
_ALERT_METRICS: Final = (
    ("waiting", "alerts_waiting_findings", "gauge", "Findings that are still to be sent."),
    ("failing", "alerts_failing_attempts", "gauge", "Attempts that failed since the last one that did not."),
    ("sent", "alerts_sent_messages", "counter", "Messages the receiver took."),
    ("findings", "alerts_sent_findings", "counter", "Findings in these."),
    ("digests", "alerts_sent_digests", "counter", "The part of the messages that were about several findings."),
    ("expired", "alerts_expired_findings", "counter", "Findings that could not be sent in time and never will be."),
    ("rejected", "alerts_rejected_findings", "counter", "Findings the receiver said it will never take."),
)
_ALERT_FAILURES: Final = ("alerts_failed_attempts", "Attempts to send that failed; most are made again.")
_RETENTION_METRICS: Final = (
    ("copied", "retention_copied_partitions", "counter", "Days of a table whose failed traces were kept, each time."),
    ("seconds", "retention_seconds", "counter", "Time spent keeping them."),
    ("failures", "retention_errors", "counter", "Rounds that failed and are tried again."),
)
_ROLLUPS_METRICS: Final = (
    ("dirty", "rollups_dirty_minutes", "gauge", "Minutes of tenants that wait to be counted."),
    ("lost", "rollups_lost", "gauge", "1 while more minutes wait than memory holds; they are found again."),
    ("lag_s", "rollups_lag_seconds", "gauge", "How long the oldest of these that is due has been so."),
    ("minutes", "rollups_counted_minutes", "counter", "Minutes counted, each time."),
    ("seconds", "rollups_seconds", "counter", "Time spent counting."),
    ("overflows", "rollups_overflows", "counter", "Minutes there was no room for: they are found again in the store."),
    ("expired", "rollups_expired_minutes", "counter", "Changed minutes not counted: spans of them may be deleted."),
    ("failures", "rollups_errors", "counter", "Rounds that failed and are tried again."),
)
_BUDGET_METRICS: Final = (
    ("limit", "budget_limit", ("budget", "unit"), "Limit of the budget, in its unit: usd or tokens."),
    ("spent", "budget_spent", ("budget", "unit"), "What its window has used so far, counted from rollups."),
    (
        "forecast",
        "budget_forecast",
        ("budget", "unit"),
        "What it will have used at the end, if it goes on so.",
    ),
    ("used_ratio", "budget_used_ratio", ("budget",), "Used part of the limit: 1 is all of it."),
)
_BUDGETS_METRICS: Final = (
    ("looked_at_s", "budgets_looked_at_seconds", "gauge", "Unix time of the last look at the budgets."),
    ("failures", "budgets_errors", "counter", "Looks at the budgets that failed and are tried again."),
)
_JOURNAL_REFUSED: Final = ("journal_refused_requests", "Requests the journal refused: full, or failing.")
_WATCHED_METRICS: Final = (
    *_JOURNAL_METRICS,
    *_KAFKA_METRICS,
    *_RECONCILER_METRICS,
    *_DETECTOR_METRICS,
    *_ROLLUPS_METRICS,
    *_BUDGETS_METRICS,
    *_RETENTION_METRICS,
)
_WATCHED_REFERENCE: Final = [
    *(
        MetricDoc(f"spanwise_{name}{'_total' if type_ == 'counter' else ''}", type_, (), doc)
        for _, name, type_, doc in _WATCHED_METRICS
    ),
    *(
        MetricDoc(f"spanwise_{name}{'_total' if type_ == 'counter' else ''}", type_, ("webhook",), doc)
        for _, name, type_, doc in _ALERT_METRICS
    ),
    *(MetricDoc(f"spanwise_{name}", "gauge", labels, doc) for _, name, labels, doc in _BUDGET_METRICS),
    MetricDoc(f"spanwise_{_ALERT_FAILURES[0]}_total", "counter", ("webhook", "reason"), _ALERT_FAILURES[1]),
    MetricDoc(f"spanwise_{_JOURNAL_REFUSED[0]}_total", "counter", ("reason",), _JOURNAL_REFUSED[1]),
    MetricDoc(f"spanwise_{_KAFKA_LAG[0]}", "gauge", ("topic", "partition"), _KAFKA_LAG[1]),
    MetricDoc(f"spanwise_{_KAFKA_REFUSED[0]}_total", "counter", ("reason",), _KAFKA_REFUSED[1]),
]


def _families(
    stats: object, metrics: Iterable[tuple[str, str, str, str]]
) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    for field, name, type_, doc in metrics:
        family = CounterMetricFamily if type_ == "counter" else GaugeMetricFamily
        yield family(f"spanwise_{name}", doc, value=float(getattr(stats, field)))


class _PartCollector(Collector):
    def __init__(self, part: WatchedPart, metrics: Iterable[tuple[str, str, str, str]]) -> None:
        self._part = part
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        yield from _families(self._part.stats(), self._metrics)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # registering must not read the part


class _JournalCollector(Collector):
    def __init__(self, journal: WatchedJournal) -> None:
        self._journal = journal

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        stats = self._journal.stats()
        yield from _families(stats, _JOURNAL_METRICS)
        refused = CounterMetricFamily(f"spanwise_{_JOURNAL_REFUSED[0]}", _JOURNAL_REFUSED[1], labels=["reason"])
        for reason, requests in stats.refused.items():
            refused.add_metric([reason], requests)
        yield refused

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # registering must not read the journal


class _KafkaCollector(Collector):
    def __init__(self, journal: WatchedKafka) -> None:
        self._journal = journal

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        stats = self._journal.stats()
        yield from _families(stats, _KAFKA_METRICS)
        lag = GaugeMetricFamily(f"spanwise_{_KAFKA_LAG[0]}", _KAFKA_LAG[1], labels=["topic", "partition"])
        for (topic, partition), records in sorted(stats.lag.items()):
            lag.add_metric([topic, str(partition)], records)
        yield lag
        refused = CounterMetricFamily(f"spanwise_{_KAFKA_REFUSED[0]}", _KAFKA_REFUSED[1], labels=["reason"])
        for reason, requests in stats.refused.items():
            refused.add_metric([reason], requests)
        yield refused

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # registering must not ask the journal


class _AlertsCollector(Collector):
    def __init__(self, alerts: WatchedAlerts) -> None:
        self._alerts = alerts

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        stats = self._alerts.stats()
        for field, name, type_, doc in _ALERT_METRICS:
            family = (CounterMetricFamily if type_ == "counter" else GaugeMetricFamily)(
                f"spanwise_{name}", doc, labels=["webhook"]
            )
            for webhook, figures in stats.items():
                family.add_metric([webhook], float(getattr(figures, field)))
            yield family
        failed = CounterMetricFamily(f"spanwise_{_ALERT_FAILURES[0]}", _ALERT_FAILURES[1], labels=["webhook", "reason"])
        for webhook, figures in stats.items():
            for reason, attempts in figures.failures.items():
                failed.add_metric([webhook, reason], attempts)
        yield failed

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # registering must not ask the webhooks


class _BudgetsCollector(Collector):
    def __init__(self, budgets: WatchedBudgets) -> None:
        self._budgets = budgets

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        stats = self._budgets.stats()
        for field, name, labels, doc in _BUDGET_METRICS:
            family = GaugeMetricFamily(f"spanwise_{name}", doc, labels=labels)
            for budget in stats.budgets:
                family.add_metric([budget.name, budget.unit][: len(labels)], float(getattr(budget, field)))
            yield family
        yield from _families(stats, _BUDGETS_METRICS)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()


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


def configure_logging(config: TelemetryConfig, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging, once, at the start of the program.

    A line carries names, counts and sizes. Texts are cut, bytes and collections become their size, and an exception
    is logged by type and place: its message may quote a payload.
    """
    stream = stream or sys.stderr
    as_json = config.log_format == "json" or (config.log_format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception_place,
        _no_payload,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(config.log_level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _exception_place(_logger: object, _method: str, event: EventDict) -> EventDict:
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event["error"] = type(error).__name__
        event["at"] = " < ".join(
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in reversed(traceback.extract_tb(error.__traceback__)[-5:])
        )
    return event


def _exception(exc_info: ExcInfo | BaseException | bool | None) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1]
    return sys.exc_info()[1] if exc_info else None


def _no_payload(_logger: object, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            if len(value) > _LOG_TEXT_MAX:
                event[key] = f"{value[:_LOG_TEXT_MAX]}... [{len(value)} characters]"
        elif isinstance(value, (bytes, bytearray, memoryview)):
            event[key] = f"[{len(value)} bytes]"
        elif value is not None and not isinstance(value, (bool, int, float)) and not key.startswith("_"):
            event[key] = _sized(value)
    return event


def _sized(value: object) -> str:
    try:
        return f"[{type(value).__name__} of {len(value)}]"  # type: ignore[arg-type]
    except TypeError:
        return f"[{type(value).__name__}]"


def metric_reference() -> str:
    """`docs/metrics.md`, made from the metrics themselves."""
    config = TelemetryConfig()
    rows = [
        f"| `{metric.name}` | {metric.type} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.doc} |"
        for metric in Telemetry().reference
    ]
    head = _REFERENCE_HEAD.format(values=config.label_values_max, series=config.gen_ai_series_max, other=OTHER)
    return "\n".join([head, *rows, ""])


_REFERENCE_HEAD: Final = """# Metrics

`GET /metrics` on the web port, Prometheus text format. Figures are per process and start at zero with it.

The `spanwise_gen_ai_*` counters are for dashboards and alerts, not for bills: they are taken from each batch as it
passes, before late duplicates and trace-level corrections are known. Ask the store for exact sums:
`SELECT sum(cost_usd) FROM spans FINAL WHERE usage_scope = 'own'`.

Label values come from the senders, so their number is bounded: the first {values} of each `gen_ai` label are kept
(`telemetry.label_values_max`), as are the first {series:,} combinations (`telemetry.gen_ai_series_max`). The rest is
counted under `{other}` and in `spanwise_label_overflow_total`. Combinations of the labels of findings are bounded by
`telemetry.findings_series_max`.

A series with such labels begins with its first event, not with a zero before it, so `rate()` and `increase()` do not
see that event. [The recording rules](../deploy/prometheus/rules/signatures.yml) count it; copy them for your own.

This page is generated from the program; a test compares them.

| Metric | Type | Labels | What it says |
|---|---|---|---|"""
