"""`spanwise up`, `receive` and `work`: build the parts, start them in order, and stop them in the opposite one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import pyarrow as pa
import structlog

from processors.normalise import plan_json
from processors.price import Price
from receiver import Receiver
from sinks.clickhouse import ClickHouseSink
from sinks.webhook import Alerts
from spanwise._native import Decoder
from spanwise.budgets import Budgets
from spanwise.clickhouse_http import ClickHouseServer
from spanwise.config import Config
from spanwise.detector import Detector
from spanwise.drift import QualityDrift
from spanwise.journal import JournalError, KafkaJournalConfig, SqliteJournal
from spanwise.memory import return_freed_memory, share_heaps
from spanwise.pipeline import DeadLetterFiles, Pipeline
from spanwise.query import StoreQueries
from spanwise.query.embedded import EmbeddedQueries
from spanwise.reconciler import WATERMARK as RECONCILER_WATERMARK
from spanwise.reconciler import Reconciler
from spanwise.retention import Retention
from spanwise.rollups import WATERMARK as ROLLUPS_WATERMARK
from spanwise.rollups import Rollups
from spanwise.store import Store, StoreConfigError, StoreError, open_store
from spanwise.telemetry import Telemetry, version
from spanwise.web import Sources, WebServer

if TYPE_CHECKING:
    from spanwise.journal.kafka.journal import KafkaJournal

AnyJournal: TypeAlias = Union[SqliteJournal, "KafkaJournal"]

log = structlog.get_logger(__name__)

STOP_S = 25.0
"""Seconds a stop may take in all. Orchestrators need a little more before they kill."""
_OPEN_FILES = 1 << 16
_SWITCH_S = 0.0005
"""How long a thread may compute while others wait for the interpreter. A request passes through it some eight times
until it is acknowledged. With the 5 ms that Python begins with, p95 of agent traces was half as long again."""
_STOP_STARTING_S = 5.0
_CLOCK_SKEW_S = 2.0
"""Nodes of a cluster that keep time are closer than that."""
_STOP_PART_S = 12.0


class StartError(Exception):
    """The program cannot start; one sentence with what to do about it."""


@dataclass(frozen=True, slots=True)
class Started:
    """Where a running program can be reached; HOST:PORT with the real ports, '' for what it does not run."""

    grpc: str
    http: str
    web: str
    clickhouse: str
    data_dir: Path
    store: str


class Role(Enum):
    """Which parts a process runs."""

    BOTH = "spanwise up"
    RECEIVE = "spanwise receive"
    WORK = "spanwise work"


async def serve(
    config: Config, *, announce: Callable[[Started], None], role: Role = Role.BOTH, stop_s: float = STOP_S
) -> None:
    """Run until SIGINT or SIGTERM. Raises StartError if a part cannot start.

    Signals count from the first moment: the first process of a container ends by nothing but what it handles itself.
    """
    share_heaps()
    allow_open_files()
    sys.setswitchinterval(_SWITCH_S)
    asked = asyncio.create_task(stopped())
    ready = False

    async def work() -> None:
        nonlocal ready
        async with running(config, role) as started:
            ready = True
            announce(started)
            await asyncio.wait([asked])
            log.info("stopping")

    working = asyncio.create_task(work())
    await asyncio.wait([asked, working], return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        asked.cancel()
    elif ready:
        _end_after(stop_s)
    else:
        log.info("stopping before everything was started")
        _end_after(min(stop_s, _STOP_STARTING_S))
        working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def allow_open_files() -> None:
    """Let this process open as many files as it may, up to 65,536.

    Services and containers begin with 1,024, which is what a program that uses `select` can take, and fewer than the
    connections that the receiver allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end_after(seconds: float) -> None:
    """End the process if it still runs then: a store or a broker that hangs would hold it for a minute or more.

    Nothing is lost by it. What was acknowledged is in the journal, and whoever reads that next takes it up.
    """

    def end() -> None:
        log.warning("stopped before all was stored: the rest is stored after the next start", after_s=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


@contextlib.asynccontextmanager
async def running(config: Config, role: Role = Role.BOTH) -> AsyncIterator[Started]:
    """The program while the context lasts. Raises StartError if a part cannot start."""
    if role is not Role.BOTH and not isinstance(config.journal, KafkaJournalConfig):
        raise StartError(
            f"`{role.value}` needs a journal that processes share: set `journal.kind: kafka`, or use `spanwise up`"
        )
    telemetry = Telemetry(config.telemetry)
    async with contextlib.AsyncExitStack() as stack:
        journal = await _open_journal(config)
        stack.push_async_callback(asyncio.to_thread, journal.close)
        _watch_journal(telemetry, journal)

        status: dict[str, Any] = {"version": version()}
        shown: Callable[[], Mapping[str, Any]] = dict
        store = None
        if role is not Role.RECEIVE:
            store = await _open_store(config)
            stack.push_async_callback(asyncio.to_thread, store.close)
            shown = await _work(stack, config, telemetry, journal, store)
            status["store"] = store.place

        if role is not Role.WORK:
            receiver = _receiver(config, journal, telemetry)
            await _bind("receiver", receiver.start())
            stack.push_async_callback(receiver.drain)
            status |= {"grpc": str(receiver.grpc_address), "http": str(receiver.http_address)}

        if store is not None:
            status["clickhouse"] = await _clickhouse(stack, config, store, telemetry)
        # last: who asks whether all is ready asks here
        web = _web(
            config,
            Sources(
                queries=StoreQueries(store) if store is not None else None,
                telemetry=telemetry,
                not_ready=lambda: _not_ready(journal),
                status=lambda: {**status, "journal": _journal_status(journal), **shown()},
            ),
        )
        status["web"] = str(await _bind("web", web.start()))
        stack.push_async_callback(web.stop)
        started = Started(
            grpc=status.get("grpc", ""),
            http=status.get("http", ""),
            web=status["web"],
            clickhouse=status.get("clickhouse", ""),
            data_dir=config.data_dir,
            store=status.get("store", ""),
        )
        places = ("grpc", "http", "web", "clickhouse", "store")
        log.info("ready", **{name: status[name] for name in places if status.get(name)})
        yield started


async def _work(
    stack: contextlib.AsyncExitStack, config: Config, telemetry: Telemetry, journal: AnyJournal, store: Store
) -> Callable[[], Mapping[str, Any]]:
    """Start what reads the journal. Returns what there is to say about it in the status."""
    sink = config.sink.build(store, telemetry.sink)
    price = config.price.build()
    telemetry.watch_price(price)

    territory = None if isinstance(journal, SqliteJournal) else journal
    alerts = Alerts(config.alerts, store=store, territory=territory)
    telemetry.watch_alerts(alerts)
    stack.push_async_callback(alerts.stop)
    await _bind("alerts", alerts.start())

    rollups = Rollups(
        config.rollups,
        store=store,
        journal=journal,
        keep_days=config.store.shortest_days("spans"),
        skew_s=_CLOCK_SKEW_S if config.store.cluster else 0.0,
    )
    telemetry.watch_rollups(rollups)
    rollups.start()
    stack.push_async_callback(asyncio.to_thread, rollups.stop, _STOP_PART_S)

    reconciler = Reconciler(
        config.reconcile,
        store=store,
        sink=sink,
        price=price,
        journal=journal,
        detector=_detector(config, store, sink, price, telemetry, alerts),
        observer=telemetry,
        territory=territory,
        recount=rollups.touched,
    )
    telemetry.watch_reconciler(reconciler)
    reconciler.start()
    stack.push_async_callback(asyncio.to_thread, reconciler.stop, _STOP_PART_S)

    drift = QualityDrift(config.quality_drift, store=store, sink=sink, observer=telemetry)
    drift.start()
    stack.push_async_callback(asyncio.to_thread, drift.stop, _STOP_PART_S)

    budgets = Budgets(config.budgets, store=store, sink=sink, observer=telemetry)
    telemetry.watch_budgets(budgets)
    budgets.start()
    stack.push_async_callback(asyncio.to_thread, budgets.stop, _STOP_PART_S)

    retention = Retention(config.store, store=store)
    telemetry.watch_retention(retention)
    retention.start()
    stack.push_async_callback(asyncio.to_thread, retention.stop, _STOP_PART_S)

    def on_stored(spans: pa.RecordBatch, log_events: pa.RecordBatch) -> None:
        telemetry.count_gen_ai(spans)
        rollups.touched(spans)
        reconciler.touched(spans, log_events)

    def rebuild(watermarks: Mapping[str, int]) -> None:
        for name, part in ((ROLLUPS_WATERMARK, rollups), (RECONCILER_WATERMARK, reconciler)):
            if name in watermarks:
                part.rebuild(watermarks[name])

    plan = plan_json()
    pipeline = Pipeline(
        config.pipeline,
        journal=journal,
        decoder=Decoder(plan),
        processors=[price],
        sink=sink,
        observer=telemetry,
        dead_letters=DeadLetterFiles(config.dead_letter_dir, config.pipeline.dead_letters_max)
        if isinstance(journal, SqliteJournal)
        else journal,
        clock=time.monotonic,
        on_stored=on_stored,
        on_idle=return_freed_memory,
        rows_version=hashlib.sha256(version().encode() + plan).hexdigest()[:8],
    )
    if not isinstance(journal, SqliteJournal):
        await asyncio.to_thread(journal.start_reading, rebuild, reconciler.release)
    pipeline.start()
    stack.push_async_callback(asyncio.to_thread, pipeline.stop, _STOP_PART_S)
    return lambda: {"unknown_models": sorted({model for _, model in list(price.unknown)})}


def _watch_journal(telemetry: Telemetry, journal: AnyJournal) -> None:
    if isinstance(journal, SqliteJournal):
        telemetry.watch_journal(journal)
        return
    telemetry.watch_kafka(journal)
    if journal.spool is not None:
        telemetry.watch_journal(journal.spool)


def _detector(
    config: Config, store: Store, sink: ClickHouseSink, price: Price, telemetry: Telemetry, alerts: Alerts
) -> Detector | None:
    if not config.detect.enabled:
        return None
    detector = Detector(
        config.detect,
        store=store,
        sink=sink,
        window=price.context_window,
        observer=telemetry,
        on_findings=alerts.news,
    )
    telemetry.watch_detector(detector)
    return detector


def _receiver(config: Config, journal: AnyJournal, telemetry: Telemetry) -> Receiver:
    try:
        return Receiver(config.receiver, journal, telemetry)
    except ValueError as error:
        raise StartError(f"cannot start receiver: {error}") from error


def _web(config: Config, sources: Sources) -> WebServer:
    try:
        return WebServer(config.web, sources)
    except ValueError as error:
        raise StartError(f"cannot start web: {error}") from error


async def _clickhouse(stack: contextlib.AsyncExitStack, config: Config, store: Store, telemetry: Telemetry) -> str:
    """Serve the embedded store as ClickHouse. Returns its address, '' if that is not wanted or not possible."""
    options = config.clickhouse
    chosen = "address" in options.model_fields_set
    if not options.listens:
        return ""
    if not store.embedded:
        if chosen:
            raise StartError(
                f"clickhouse.address is {options.address}, but the store is a server: ask {store.place} itself"
            )
        return ""
    try:
        queries = await asyncio.to_thread(EmbeddedQueries, store, options.limits)
        server = ClickHouseServer(options, queries, config.web.tokens, telemetry)
        address = await server.start()
    except (OSError, ValueError, StoreError) as error:
        if chosen or not isinstance(error, OSError):
            raise StartError(f"cannot start clickhouse on {options.address}: {error}") from error
        # A ClickHouse of the user's own is there. That is no reason not to take spans.
        log.warning("clickhouse_port_taken", address=options.address, choose="--clickhouse HOST:PORT")
        return ""
    stack.push_async_callback(server.stop)
    return str(address)


async def _open_journal(config: Config) -> AnyJournal:
    try:
        return await asyncio.to_thread(config.journal.build, config.journal_dir)
    except JournalError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"cannot open journal in {config.journal_dir}: {error.strerror}") from error


async def _open_store(config: Config) -> Store:
    try:
        return await asyncio.to_thread(lambda: open_store(Store(config.store_config)))
    except (StoreConfigError, StoreError) as error:
        raise StartError(str(error)) from error


async def _bind(part: str, starting: Any) -> Any:
    try:
        return await starting
    except (OSError, ValueError) as error:
        raise StartError(f"cannot start {part}: {error}") from error


def _not_ready(journal: AnyJournal) -> Mapping[str, str]:
    """Ready means: what is sent now is taken. A store that is away does not change that while the journal has room."""
    reason = journal.refusing()
    return {"journal": reason} if reason else {}


def _journal_status(journal: AnyJournal) -> Mapping[str, Any]:
    if isinstance(journal, SqliteJournal):
        stats = journal.stats()
        return {
            "frames": stats.frames_pending,
            "bytes": stats.bytes,
            "files": stats.files,
            "oldest_age_s": stats.oldest_age_s,
        }
    figures = journal.stats()
    return {
        "brokers": "up" if figures.up else "away",
        "partitions": figures.partitions,
        "lag_records": sum(figures.lag.values()),
        "oldest_age_s": figures.oldest_age_s,
        "dead_letters": figures.dead_letters,
    }


async def stopped() -> None:
    """Return when the process is asked to stop: SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
