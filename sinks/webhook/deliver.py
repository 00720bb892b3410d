"""Tell webhooks about findings, at least once each, for as long as it takes and no longer.

The queue is the table `findings` itself: what is due is what is there and not in `alert_deliveries`. So there is
nothing to lose when the program is killed, nothing that fills up while a receiver is away, and no disk that a worker of
a fleet would need. What is in memory (what was sent a moment ago, how long to wait) only spares repetitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa
import structlog
from aiohttp.abc import AbstractResolver

from sinks.webhook.client import Outcome, WebhookClient
from sinks.webhook.config import SEVERITIES, AlertsConfig, WebhookConfig
from sinks.webhook.message import Alert, Message, compose
from spanwise.model import ALERT_DELIVERIES
from spanwise.store import Store, load_sql
from spanwise.store.reading import read

log = structlog.get_logger(__name__)

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_EXPIRED_MS: Final = _DAY_MS
"""What became too old to be sent is counted if it is found within this time after that."""
_OVERLAP_MS: Final = 300_000
"""A row may become visible this long after the time in its `version`: slow inserts, replicas, clocks."""
_ALL_AGAIN_S: Final = 600.0
_DUE_MAX: Final = 200
"""Findings looked at, and told in one message, at once; the others wait in the table."""
_TOLD_MAX: Final = 20_000
_GATHER_S: Final = 1.0
_RETRY_MIN_S: Final = 1.0


class Territory(Protocol):
    """Which traces are this program's to tell about, where several share one store."""

    def owned(self, trace_ids: Sequence[str]) -> Sequence[bool]: ...
    def term(self) -> int | None: ...


class _Everything:
    def owned(self, trace_ids: Sequence[str]) -> Sequence[bool]:
        return [True] * len(trace_ids)

    def term(self) -> int | None:
        return 0


class Due(NamedTuple):
    """A finding somebody has to be told about."""

    alert: Alert
    written_ms: int


class Page(NamedTuple):
    due: list[Due]
    waiting: int
    """All that are due, those of other programs included."""
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class WebhookStats:
    """State of one webhook at one moment, and counts since the start."""

    waiting: int
    failing: int
    """Attempts that failed since the last one that did not."""
    sent: int
    findings: int
    digests: int
    expired: int
    rejected: int
    failures: Mapping[str, int]


class DeliveryQueue:
    """What is due and what was told, of one webhook. Blocking; raises what the store raises."""

    def __init__(self, config: WebhookConfig, store: Store) -> None:
        self._config = config
        self._store = store

    def known_since(self, now_ms: int) -> int:
        """When this webhook was first known, which is now if it never was: of what was before it is told nothing."""
        params = {"webhook": self._config.name}
        answer = json.loads(read(self._store, load_sql("sinks", "alerts_since"), params, "JSONEachRow"))
        if answer["rows"]:
            return int(answer["since_ms"])
        self.record([_row(self._config.name, "", "", "", "known", "", now_ms)])
        return now_ms

    def due(self, since_ms: int, limit: int) -> Page:
        """What was written since then and is not told yet, the worst first."""
        params = {
            "webhook": self._config.name,
            "since_ms": since_ms,
            "rank_min": SEVERITIES.index(self._config.min_severity) + 1,
            "signatures": list(self._config.signatures),
            "tenants": list(self._config.tenants),
            "limit": limit,
        }
        answer = read(self._store, load_sql("sinks", "alerts_due"), params, "JSONEachRow")
        rows = [json.loads(line) for line in answer.splitlines()]
        due = [Due(_alert(row), int(row["written_ms"])) for row in rows]
        return Page(due, int(rows[0]["waiting"]) if rows else 0, int(rows[0]["oldest_ms"]) if rows else None)

    def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        batch = pa.RecordBatch.from_pylist(list(rows), schema=ALERT_DELIVERIES.arrow)
        token = hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()
        self._store.insert(ALERT_DELIVERIES, batch, f"alerts-{token}")


def _alert(row: dict[str, Any]) -> Alert:
    row["span_ids"] = tuple(row["span_ids"])
    for name in ("count", "wasted_tokens", "rule_version"):
        row[name] = int(row[name])
    return Alert(**{field.name: row[field.name] for field in fields(Alert)})


def _row(
    webhook: str, finding_id: str, severity: str, tenant: str, outcome: str, message: str, now_ms: int
) -> dict[str, Any]:
    return {
        "webhook": webhook,
        "finding_id": finding_id,
        "severity": severity,
        "outcome": outcome,
        "message": message,
        "tenant": tenant,
        "day": now_ms // _DAY_MS,
        "received_at": now_ms,
    }


def plan(due: Sequence[Alert], room: int) -> list[tuple[Alert, ...]]:
    """What to say in at most `room` messages: each alone, or the last ones together if they are too many."""
    if len(due) <= room:
        return [(alert,) for alert in due]
    if room < 1:
        return []
    return [*((alert,) for alert in due[: room - 1]), tuple(due[room - 1 :])]


class Room:
    """How many messages may be sent now: a bucket that fills with time."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._size = float(per_minute)
        self._rate = per_minute / 60
        self._clock = clock
        self._level = self._size
        self._at = clock()

    def now(self) -> int:
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        return int(self._level)

    def take(self) -> None:
        self._level -= 1

    def wait_s(self) -> float:
        """Until there is room for one."""
        self.now()
        return max(0.0, (1 - self._level) / self._rate)


class Delivery:
    """One webhook. `round` does what can be done now; `run` does rounds until it is stopped."""

    def __init__(
        self,
        config: WebhookConfig,
        alerts: AlertsConfig,
        *,
        queue: DeliveryQueue,
        client: WebhookClient,
        territory: Territory,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._alerts = alerts
        self._queue = queue
        self._client = client
        self._territory = territory
        self._clock = clock
        self._wall_ns = wall_ns
        self._jitter = jitter
        self._room = Room(config.messages_per_minute, clock)
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._known_since_ms: int | None = None
        self._since_ms = 0
        self._term: int | None = None
        self._all_again_s = float("-inf")
        self._due_max = _DUE_MAX
        self._told: OrderedDict[str, None] = OrderedDict()
        """Keys of what was told a moment ago, which the store may not show yet."""
        self._unrecorded: list[dict[str, Any]] = []
        self._attempts: Counter[str] = Counter()
        """Of what could not be sent: a message that a receiver chokes on goes behind the others."""
        self._quiet_until_s = float("-inf")
        self._waiting = 0
        self._failing = 0
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self._config.name

    def stats(self) -> WebhookStats:
        counts = self._counts
        return WebhookStats(
            waiting=self._waiting,
            failing=self._failing,
            sent=counts["sent"],
            findings=counts["findings"],
            digests=counts["digests"],
            expired=counts["expired"],
            rejected=counts["rejected"],
            failures=dict(self._failures),
        )

    def news(self) -> None:
        """Something was found."""
        self._news.set()

    def stop(self) -> None:
        self._stopping.set()
        self._news.set()

    async def run(self) -> None:
        """Rounds until `stop`. What a store or a receiver does wrong delays the next one and nothing else."""
        while not self._stopping.is_set():
            self._news.clear()
            try:
                pause_s = await self.round()
            except Exception as error:  # whatever a driver raises: what is due stays in the store
                pause_s = self._backoff()
                log.warning(
                    "alerts_failed", webhook=self.name, error=type(error).__name__, retry_in_s=round(pause_s, 1)
                )
            await self._sleep(pause_s)

    async def _sleep(self, pause_s: float) -> None:
        """Until it is time, or something new may be sent; never less than it takes to gather what comes together."""
        began = self._clock()
        quiet_s = max(_GATHER_S, self._quiet_until_s - began)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), quiet_s)
        if pause_s > quiet_s and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause_s - quiet_s)

    def _backoff(self) -> float:
        """The pause after another failure: doubled each time, and not the same for all programs."""
        self._failing += 1
        longest: float = min(self._config.retry_max_s, _RETRY_MIN_S * 2 ** min(self._failing - 1, 20))
        pause_s = longest * (0.5 + 0.5 * self._jitter())
        self._quiet_until_s = self._clock() + pause_s
        return pause_s

    async def round(self) -> float:
        """Send what is due and may be sent. Returns the pause until the next look; raises what the store raises."""
        await self._record()
        term = self._territory.term()
        if term is None:
            return _GATHER_S
        now_ms = self._wall_ns() // 10**6
        await self._from_where(term, now_ms)
        page = await asyncio.to_thread(self._queue.due, self._since_ms, self._due_max)
        owned = self._territory.owned([due.alert.trace_id for due in page.due])
        mine = [due for due, ours in zip(page.due, owned, strict=True) if ours and due.alert.key not in self._told]
        oldest_ms = now_ms if page.oldest_ms is None else min(page.oldest_ms, now_ms)
        self._since_ms = max(self._since_ms, oldest_ms - _OVERLAP_MS)

        too_old_ms = now_ms - int(self._config.give_up_after_h * _HOUR_MS)
        expired = [due.alert for due in mine if due.written_ms < too_old_ms]
        if expired:
            await self._settle(expired, "expired", "")
            log.error("alerts_expired", webhook=self.name, findings=len(expired))
        fresh = [due.alert for due in mine if due.written_ms >= too_old_ms]
        self._waiting = len(fresh) + page.waiting - len(page.due)
        fresh.sort(key=lambda alert: self._attempts[alert.key])
        if not await self._send(fresh) or self._waiting:
            return max(self._quiet_until_s - self._clock(), self._room.wait_s())
        return self._alerts.poll_s

    async def _from_where(self, term: int, now_ms: int) -> None:
        """Everything that may be due is looked through at the start, when traces came to us, and now and then."""
        if self._known_since_ms is None:
            self._known_since_ms = await asyncio.to_thread(self._queue.known_since, now_ms)
        now_s = self._clock()
        if term != self._term or now_s >= self._all_again_s:
            low_ms = now_ms - int(self._config.give_up_after_h * _HOUR_MS) - _EXPIRED_MS
            self._since_ms = max(0, self._known_since_ms, low_ms)
            self._term, self._all_again_s = term, now_s + _ALL_AGAIN_S

    async def _send(self, fresh: Sequence[Alert]) -> bool:
        """False if the receiver is to be left alone for a while."""
        for alerts in plan(fresh, self._room.now()):
            if self._stopping.is_set():
                return False
            message = compose(alerts, self._config, self._alerts.trace_url)
            self._room.take()
            outcome = await self._client.send(message)
            if outcome.taken:
                await self._taken(message)
            elif outcome.rejected and len(alerts) == 1:
                await self._settle(alerts, "rejected", message.key)
                log.error("alert_rejected", webhook=self.name, reason=outcome.reason, finding=alerts[0].finding_id)
            else:
                self._failed(message, outcome)
                return False
        return True

    async def _taken(self, message: Message) -> None:
        alone = len(message.alerts) == 1
        self._failing = 0
        self._counts["sent"] += 1
        self._counts["findings"] += len(message.alerts)
        self._counts["digests"] += not alone
        await self._settle(message.alerts, "sent" if alone else "digest", message.key)

    def _failed(self, message: Message, outcome: Outcome) -> None:
        if outcome.rejected:
            self._due_max = max(1, len(message.alerts) // 2)  # too much at once: the findings themselves may be fine
        for alert in message.alerts:
            self._attempts[alert.key] += 1
        if len(self._attempts) > _TOLD_MAX:
            self._attempts.clear()
        self._failures[outcome.reason] += 1
        pause_s = max(self._backoff(), outcome.retry_after_s)
        self._quiet_until_s = self._clock() + pause_s
        log.warning(
            "alert_not_sent",
            webhook=self.name,
            reason=outcome.reason,
            hint=outcome.hint,
            findings=len(message.alerts),
            failed_in_a_row=self._failing,
            retry_in_s=round(pause_s, 1),
        )

    async def _settle(self, alerts: Sequence[Alert], outcome: str, message: str) -> None:
        """These are done with, in memory at once and in the store as soon as it answers."""
        if outcome in {"expired", "rejected"}:
            self._counts[outcome] += len(alerts)
        now_ms = self._wall_ns() // 10**6
        for alert in alerts:
            self._told[alert.key] = None
            self._attempts.pop(alert.key, None)
            self._unrecorded.append(
                _row(self.name, alert.finding_id, alert.severity, alert.tenant, outcome, message, now_ms)
            )
        self._waiting = max(0, self._waiting - (outcome != "expired") * len(alerts))
        while len(self._told) > _TOLD_MAX:
            self._told.popitem(last=False)
        with contextlib.suppress(Exception):  # it is not sent again, and nothing else is until this is recorded
            await self._record()

    async def _record(self) -> None:
        if self._unrecorded:
            rows, count = list(self._unrecorded), len(self._unrecorded)
            await asyncio.to_thread(self._queue.record, rows)
            del self._unrecorded[:count]


class Alerts:
    """All webhooks. `start` and `stop` belong to one event loop; `news` and `stats` may be called from any thread."""

    def __init__(
        self,
        config: AlertsConfig,
        *,
        store: Store,
        territory: Territory | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._clients = [WebhookClient(webhook, resolver=resolver) for webhook in config.webhooks]
        self._deliveries = [
            Delivery(
                webhook,
                config,
                queue=DeliveryQueue(webhook, store),
                client=client,
                territory=territory or _Everything(),
            )
            for webhook, client in zip(config.webhooks, self._clients, strict=True)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Raises ValueError if a URL, a secret or a certificate cannot be read."""
        self._loop = asyncio.get_running_loop()
        for client in self._clients:
            await client.open()
        self._tasks = [asyncio.create_task(delivery.run()) for delivery in self._deliveries]

    async def stop(self, timeout_s: float = 3.0) -> None:
        """Finish what is being sent, at most this long; the rest is sent after the next start."""
        for delivery in self._deliveries:
            delivery.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()

    def news(self, _findings: object = None) -> None:
        """Something was found: send it now rather than at the next look. Returns at once."""
        if self._loop is not None and self._tasks:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and so is this
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for delivery in self._deliveries:
            delivery.news()

    def stats(self) -> Mapping[str, WebhookStats]:
        """By name of the webhook."""
        return {delivery.name: delivery.stats() for delivery in self._deliveries}
