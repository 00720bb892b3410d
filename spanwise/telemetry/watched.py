"""Figures that the parts of a process keep themselves, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One line of the metric reference."""

    name: str
    type: str
    labels: tuple[str, ...]
    doc: str


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
RECONCILER_METRICS: Final = (
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
DETECTOR_METRICS: Final = (
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
RETENTION_METRICS: Final = (
    ("copied", "retention_copied_partitions", "counter", "Days of a table whose failed traces were kept, each time."),
    ("seconds", "retention_seconds", "counter", "Time spent keeping them."),
    ("failures", "retention_errors", "counter", "Rounds that failed and are tried again."),
)
ROLLUPS_METRICS: Final = (
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
    *RECONCILER_METRICS,
    *DETECTOR_METRICS,
    *ROLLUPS_METRICS,
    *_BUDGETS_METRICS,
    *RETENTION_METRICS,
)
REFERENCE: Final = [
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


class PartCollector(Collector):
    def __init__(self, part: WatchedPart, metrics: Iterable[tuple[str, str, str, str]]) -> None:
        self._part = part
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        yield from _families(self._part.stats(), self._metrics)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # registering must not read the part


class JournalCollector(Collector):
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


class KafkaCollector(Collector):
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


class AlertsCollector(Collector):
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


class BudgetsCollector(Collector):
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
