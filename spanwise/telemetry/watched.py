"""Figures that the parts of a process keep themselves, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Stats_co = TypeVar("Stats_co", covariant=True)


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One line of the metric reference."""

    name: str
    type: str
    labels: tuple[str, ...]
    doc: str


class Watched(Protocol[Stats_co]):
    """A part that can be asked for figures: those of its table below, and what is named here besides."""

    def stats(self) -> Stats_co: ...


class JournalFigures(Protocol):
    """What a journal says about itself, as far as its metrics need it; counters run from the start of the process."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused requests by reason."""


class KafkaFigures(Protocol):
    """What a Kafka journal says about itself, beside the figures of `_KAFKA`."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused requests by reason."""

    @property
    def lag(self) -> Mapping[tuple[str, int], int]:
        """Records that are not stored yet, by topic and partition."""


class AlertFigures(Protocol):
    """What a webhook says about itself, beside the figures of `_ALERTS`."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed attempts by reason."""


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


Family: TypeAlias = GaugeMetricFamily | CounterMetricFamily


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric kept by a part, in a field of its figures."""

    type: Literal["gauge", "counter"]
    field: str
    name: str
    doc: str
    labels: tuple[str, ...]

    @property
    def reference(self) -> MetricDoc:
        total = "_total" if self.type == "counter" else ""
        return MetricDoc(f"spanwise_{self.name}{total}", self.type, self.labels, self.doc)

    def family(self, samples: Iterable[tuple[Sequence[str], float]]) -> Family:
        """The metric at one scrape, from the values of its labels and the number of each."""
        make = CounterMetricFamily if self.type == "counter" else GaugeMetricFamily
        family = make(f"spanwise_{self.name}", self.doc, labels=self.labels)
        for labels, value in samples:
            family.add_metric(labels, float(value))
        return family


def _gauge(field: str, name: str, doc: str, *labels: str) -> Figure:
    return Figure("gauge", field, name, doc, labels)


def _counter(field: str, name: str, doc: str, *labels: str) -> Figure:
    return Figure("counter", field, name, doc, labels)


_JOURNAL: Final = (
    _gauge("frames_pending", "journal_depth_requests", "Requests that are durable and not yet taken out."),
    _gauge("ranges_open", "journal_open_ranges", "Ranges that are taken out and not yet stored."),
    _gauge("oldest_age_s", "journal_oldest_age_seconds", "Age of the oldest request that is not yet stored."),
    _gauge("waiting_bytes", "journal_waiting_bytes", "Bytes of requests that wait for their commit."),
    _gauge("bytes", "journal_bytes", "Size of the journal on disk."),
    _gauge("bytes_max", "journal_bytes_max", "Size at which the journal refuses requests."),
    _gauge("disk_free_bytes", "journal_disk_free_bytes", "Free space of the disk the journal is on."),
    _gauge("disk_floor_bytes", "journal_disk_floor_bytes", "Free space below which the journal refuses requests."),
    _gauge("files", "journal_files", "Files of the journal."),
    _counter("commits", "journal_commits", "Commits, each of one or more requests."),
    _counter("commit_seconds", "journal_commit_seconds", "Time spent in commits."),
    _counter("frames_committed", "journal_committed_requests", "Requests made durable."),
    _counter("bytes_committed", "journal_committed_bytes", "Bytes of these requests."),
    _counter("cache_misses", "journal_cache_misses", "Ranges that had to be read back from disk."),
    _counter("damaged_files", "journal_damaged_files", "Journal files set aside because they could not be read."),
    _counter("frames_salvaged", "journal_salvaged_requests", "Requests saved from damaged files."),
    _counter("frames_lost", "journal_lost_requests", "Requests that could not be saved from damaged files."),
)
_JOURNAL_REFUSED: Final = _counter(
    "refused", "journal_refused_requests", "Requests the journal refused: full, or failing.", "reason"
)
_KAFKA: Final = (
    _gauge("up", "kafka_up", "1 while requests go to the brokers, 0 while they are refused or go to the spool."),
    _gauge("waiting_bytes", "kafka_waiting_bytes", "Bytes of requests that wait for the brokers."),
    _counter("requests", "kafka_requests", "Requests made durable."),
    _counter("request_bytes", "kafka_request_bytes", "Bytes of these requests."),
    _counter("request_seconds", "kafka_request_seconds", "Time until they were durable, added up."),
    _counter("messages", "kafka_messages", "Messages acknowledged by the brokers."),
    _counter("producer_rebuilds", "kafka_producer_rebuilds", "Times the producer failed and was built anew."),
    _counter("spooled", "kafka_spooled_requests", "Requests that went to the spool."),
    _counter("drained", "kafka_drained_requests", "Requests sent from the spool to the brokers."),
    _counter("left_out", "kafka_left_out_items", "Spans or log records too large for a message even when cut."),
    _gauge("partitions", "kafka_assigned_partitions", "Partitions that this worker reads."),
    _gauge("held_records", "kafka_held_records", "Records that were read and are not taken out yet."),
    _gauge("ranges_open", "kafka_open_ranges", "Ranges that are taken out and not yet stored."),
    _gauge("oldest_age_s", "kafka_oldest_age_seconds", "Age of the oldest record that was read and not taken out."),
    _counter("ranges", "kafka_ranges", "Ranges taken out."),
    _counter("ranges_resumed", "kafka_resumed_ranges", "The part of them that somebody else had begun."),
    _counter("commits", "kafka_commits", "Offset commits."),
    _counter("rebalances", "kafka_rebalances", "Times partitions were assigned to this worker."),
    _counter("consumer_rebuilds", "kafka_consumer_rebuilds", "Times the reader failed and was built anew."),
    _counter("dead_letters", "kafka_dead_letters", "Records set aside before they were decoded."),
    _counter("expired", "kafka_expired_ranges", "Ranges whose records the broker had deleted before they came back."),
)
_KAFKA_LAG: Final = _gauge("lag", "kafka_lag_records", "Records that are not stored yet.", "topic", "partition")
_KAFKA_REFUSED: Final = _counter(
    "refused", "kafka_refused_requests", "Requests refused: the brokers are away, or too much waits.", "reason"
)
_RECONCILER: Final = (
    _gauge("dirty", "reconcile_dirty_traces", "Traces that wait to be decided, as far as memory knows them."),
    _gauge("lag_s", "reconcile_lag_seconds", "How long the oldest of these has been waiting."),
    _gauge("spilled", "reconcile_spilled", "1 while more traces wait than memory holds; they are found again."),
    _gauge("cached_rows", "reconcile_cached_spans", "Spans held in memory until their trace is decided."),
    _counter("read_back", "reconcile_read_back_traces", "Traces that had to be read from the store."),
    _counter("corrections", "reconcile_corrected_spans", "Spans stored again with a correction."),
    _counter("joined", "reconcile_joined_logs", "Log records joined to a span, whenever their trace was decided."),
    _counter("unjoined", "reconcile_unjoined_logs", "Log records no span was found for when their trace was decided."),
    _gauge("failed", "reconcile_failed_traces", "Traces that cannot be decided; each is tried again alone."),
    _gauge("oversized", "reconcile_oversized_traces", "Traces that go on with more spans than are decided."),
    _counter("failed_attempts", "reconcile_failed_attempts", "Attempts that failed because of one trace."),
    _counter("added_up", "reconcile_added_up_traces", "Oversized traces added up by the store, each time."),
    _counter(
        "aside_overflows", "reconcile_aside_overflows", "Failed traces there was no room for; they are found again."
    ),
)
_DETECTOR: Final = (
    _gauge("open_traces", "detect_open_traces", "Traces whose steps are held in memory."),
    _gauge("state_bytes", "detect_state_bytes", "Memory these take."),
    _counter("evicted", "detect_evicted_traces", "Open traces let go for want of memory; they are read back."),
    _counter("late", "detect_late_spans", "Spans that came for traces that memory did not hold any more."),
    _counter("traces", "detect_examined_traces", "Traces examined, each time counted."),
    _counter("steps", "detect_examined_steps", "Steps of them, each time counted."),
    _counter("seconds", "detect_seconds", "Time spent on detection."),
    _counter("withdrawn", "detect_withdrawn_findings", "Findings taken back because of spans that came late."),
)
_ALERTS: Final = (
    _gauge("waiting", "alerts_waiting_findings", "Findings that are still to be sent.", "webhook"),
    _gauge("failing", "alerts_failing_attempts", "Attempts that failed since the last one that did not.", "webhook"),
    _counter("sent", "alerts_sent_messages", "Messages the receiver took.", "webhook"),
    _counter("findings", "alerts_sent_findings", "Findings in these.", "webhook"),
    _counter("digests", "alerts_sent_digests", "The part of the messages that were about several findings.", "webhook"),
    _counter(
        "expired", "alerts_expired_findings", "Findings that could not be sent in time and never will be.", "webhook"
    ),
    _counter("rejected", "alerts_rejected_findings", "Findings the receiver said it will never take.", "webhook"),
)
_ALERT_FAILURES: Final = _counter(
    "failures", "alerts_failed_attempts", "Attempts to send that failed; most are made again.", "webhook", "reason"
)
_RETENTION: Final = (
    _counter("copied", "retention_copied_partitions", "Days of a table whose failed traces were kept, each time."),
    _counter("seconds", "retention_seconds", "Time spent keeping them."),
    _counter("failures", "retention_errors", "Rounds that failed and are tried again."),
)
_ROLLUPS: Final = (
    _gauge("dirty", "rollups_dirty_minutes", "Minutes of tenants that wait to be counted."),
    _gauge("lost", "rollups_lost", "1 while more minutes wait than memory holds; they are found again."),
    _gauge("lag_s", "rollups_lag_seconds", "How long the oldest of these that is due has been so."),
    _counter("minutes", "rollups_counted_minutes", "Minutes counted, each time."),
    _counter("seconds", "rollups_seconds", "Time spent counting."),
    _counter("overflows", "rollups_overflows", "Minutes there was no room for: they are found again in the store."),
    _counter("expired", "rollups_expired_minutes", "Changed minutes not counted: spans of them may be deleted."),
    _counter("failures", "rollups_errors", "Rounds that failed and are tried again."),
)
_PRICE: Final = (
    _counter("unknown_overflow", "price_unlisted_spans", "Spans of models without a price beyond `price.unknown_max`."),
    _counter(
        "lookups_refused",
        "price_refused_lookups",
        "Names of models beyond `price.lookups_per_batch_max` new ones of a batch: its spans of them have no price.",
    ),
)
_BUDGET: Final = (
    _gauge("limit", "budget_limit", "Limit of the budget, in its unit: usd or tokens.", "budget", "unit"),
    _gauge("spent", "budget_spent", "What its window has used so far, counted from rollups.", "budget", "unit"),
    _gauge("forecast", "budget_forecast", "What it will have used at the end, if it goes on so.", "budget", "unit"),
)
_BUDGET_USED: Final = _gauge("used_ratio", "budget_used_ratio", "Used part of the limit: 1 is all of it.", "budget")
_BUDGETS: Final = (
    _gauge("looked_at_s", "budgets_looked_at_seconds", "Unix time of the last look at the budgets."),
    _counter("failures", "budgets_errors", "Looks at the budgets that failed and are tried again."),
)
REFERENCE: Final = [
    figure.reference
    for figure in (
        *_JOURNAL,
        *_KAFKA,
        *_RECONCILER,
        *_DETECTOR,
        *_ROLLUPS,
        *_BUDGETS,
        *_RETENTION,
        *_PRICE,
        *_ALERTS,
        *_BUDGET,
        _BUDGET_USED,
        _ALERT_FAILURES,
        _JOURNAL_REFUSED,
        _KAFKA_LAG,
        _KAFKA_REFUSED,
    )
]


class AtScrape(Collector):
    """Asks for families at each scrape and not before: registering must not read the part."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families()

    def describe(self) -> Iterable[Family]:
        return ()


def journal(stats: JournalFigures) -> Iterator[Family]:
    yield from _numbers(_JOURNAL, stats)
    yield _by_reason(_JOURNAL_REFUSED, stats.refused)


def kafka(stats: KafkaFigures) -> Iterator[Family]:
    yield from _numbers(_KAFKA, stats)
    lag = sorted(stats.lag.items())
    yield _KAFKA_LAG.family(((topic, str(partition)), records) for (topic, partition), records in lag)
    yield _by_reason(_KAFKA_REFUSED, stats.refused)


def reconciler(stats: object) -> Iterator[Family]:
    return _numbers(_RECONCILER, stats)


def detector(stats: object) -> Iterator[Family]:
    return _numbers(_DETECTOR, stats)


def rollups(stats: object) -> Iterator[Family]:
    return _numbers(_ROLLUPS, stats)


def retention(stats: object) -> Iterator[Family]:
    return _numbers(_RETENTION, stats)


def price(stats: object) -> Iterator[Family]:
    return _numbers(_PRICE, stats)


def alerts(stats: Mapping[str, AlertFigures]) -> Iterator[Family]:
    for figure in _ALERTS:
        yield figure.family(((webhook,), getattr(figures, figure.field)) for webhook, figures in stats.items())
    yield _ALERT_FAILURES.family(
        ((webhook, reason), attempts)
        for webhook, figures in stats.items()
        for reason, attempts in figures.failures.items()
    )


def budgets(stats: BudgetsFigures) -> Iterator[Family]:
    for figure in _BUDGET:
        yield figure.family(((each.name, each.unit), getattr(each, figure.field)) for each in stats.budgets)
    yield _BUDGET_USED.family(((each.name,), each.used_ratio) for each in stats.budgets)
    yield from _numbers(_BUDGETS, stats)


def _numbers(figures: Iterable[Figure], stats: object) -> Iterator[Family]:
    for figure in figures:
        yield figure.family([((), getattr(stats, figure.field))])


def _by_reason(figure: Figure, requests: Mapping[str, int]) -> Family:
    return figure.family(((reason,), number) for reason, number in requests.items())
