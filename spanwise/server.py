"""`spanwise up`: builds the parts, starts them in order, and stops them in the opposite one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from processors.normalise import plan_json
from receiver import Receiver
from spanwise._native import Decoder
from spanwise.config import Config
from spanwise.journal import JournalError, SqliteJournal
from spanwise.memory import return_freed_memory
from spanwise.pipeline import DeadLetters, Pipeline
from spanwise.query import StoreQueries
from spanwise.reconciler import Reconciler
from spanwise.store import Store, StoreConfigError, StoreError, open_store
from spanwise.telemetry import Telemetry, version
from spanwise.web import Sources, WebServer

log = structlog.get_logger(__name__)

_STOP_S = 12.0


class StartError(Exception):
    """The program cannot start; one sentence with what to do about it."""


@dataclass(frozen=True, slots=True)
class Started:
    """Where a running program can be reached; HOST:PORT with the real ports."""

    grpc: str
    http: str
    web: str
    data_dir: Path
    store: str


async def serve(config: Config, *, announce: Callable[[Started], None]) -> None:
    """Run until SIGINT or SIGTERM. Raises StartError if a part cannot start."""
    async with running(config) as started:
        announce(started)
        await stopped()
        log.info("stopping")


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[Started]:
    """The whole program while the context lasts. Raises StartError if a part cannot start."""
    telemetry = Telemetry(config.telemetry)
    async with contextlib.AsyncExitStack() as stack:
        journal = _open_journal(config)
        stack.callback(journal.close)
        telemetry.watch_journal(journal)
        store = await _open_store(config)
        stack.push_async_callback(asyncio.to_thread, store.close)

        sink = config.sink.build(store, telemetry.sink)
        price = config.price.build()

        reconciler = Reconciler(
            config.reconcile, store=store, sink=sink, price=price, journal=journal, observer=telemetry
        )
        telemetry.watch_reconciler(reconciler)
        reconciler.start()
        stack.push_async_callback(asyncio.to_thread, reconciler.stop, _STOP_S)

        def on_stored(spans: pa.RecordBatch, log_events: pa.RecordBatch) -> None:
            telemetry.count_gen_ai(spans)
            reconciler.touched(spans, log_events)

        plan = plan_json()
        pipeline = Pipeline(
            config.pipeline,
            journal=journal,
            decoder=Decoder(plan),
            processors=[price],
            sink=sink,
            observer=telemetry,
            dead_letters=DeadLetters(config.dead_letter_dir, config.pipeline.dead_letters_max),
            clock=time.monotonic,
            on_stored=on_stored,
            on_idle=return_freed_memory,
            rows_version=hashlib.sha256(version().encode() + plan).hexdigest()[:8],
        )
        pipeline.start()
        stack.push_async_callback(asyncio.to_thread, pipeline.stop, _STOP_S)

        receiver = _receiver(config, journal, telemetry)
        await _bind("receiver", receiver.start())
        stack.push_async_callback(receiver.drain)

        ports: dict[str, Any] = {}
        web = WebServer(
            config.web,
            Sources(
                queries=StoreQueries(store),
                telemetry=telemetry,
                not_ready=lambda: _not_ready(journal),
                status=lambda: {
                    "version": version(),
                    **ports,
                    "store": store.place,
                    "journal": _journal_status(journal),
                    "unknown_models": sorted({model for _, model in list(price.unknown)}),
                },
            ),
        )
        web_address = await _bind("web", web.start())
        stack.push_async_callback(web.stop)
        started = Started(
            grpc=str(receiver.grpc_address),
            http=str(receiver.http_address),
            web=str(web_address),
            data_dir=config.data_dir,
            store=store.place,
        )
        ports.update(grpc=started.grpc, http=started.http, web=started.web)
        log.info("ready", **ports, store=store.place)
        yield started


def _receiver(config: Config, journal: SqliteJournal, telemetry: Telemetry) -> Receiver:
    try:
        return Receiver(config.receiver, journal, telemetry)
    except ValueError as error:
        raise StartError(f"cannot start receiver: {error}") from error


def _open_journal(config: Config) -> SqliteJournal:
    try:
        return config.journal.build(config.journal_dir)
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


def _not_ready(journal: SqliteJournal) -> Mapping[str, str]:
    """Ready means: what is sent now is taken. A store that is away does not change that while the journal has room."""
    reason = journal.refusing()
    return {"journal": reason} if reason else {}


def _journal_status(journal: SqliteJournal) -> Mapping[str, Any]:
    stats = journal.stats()
    return {
        "frames": stats.frames_pending,
        "bytes": stats.bytes,
        "files": stats.files,
        "oldest_age_s": stats.oldest_age_s,
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
