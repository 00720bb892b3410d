"""From the journal to the store: seal, decode, price, insert, forget; two threads, one range ahead.

Nothing here decides what a span means or how it is stored. What it does decide: how long to gather (`Pacer`), that a
range is forgotten only after its rows are stored, and that a range which can never be stored is set aside as a file
instead of stopping the ones behind it.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import structlog
from pydantic import BaseModel, ConfigDict, Field

from spanwise._native import Decoder
from spanwise.stage import DeadLetters, Frame, Journal, Processor, RejectedError, SealedRange, Sink

log = structlog.get_logger(__name__)

_RANGES_MAX = 2
"""Ranges in memory: one is stored while the next is prepared."""
_IDLE_WAIT_S = 0.5
_IDLE_AFTER_S = 5.0
_POLL_S = 0.02
_FAILED_WAIT_S = 1.0


class PipelineConfig(BaseModel):
    """How much is gathered before it is stored together."""

    model_config = ConfigDict(extra="forbid")

    batch_bytes: int = Field(
        16 << 20, ge=64 << 10, le=256 << 20, description="Bytes of requests that are stored together at the most."
    )
    batch_age_s: float = Field(
        0.8,
        ge=0,
        le=60,
        description="While data keeps coming, gather this long between two inserts. After a pause the first data is "
        "stored at once.",
    )
    retry_max_s: float = Field(
        10.0, ge=0.1, le=600, description="Longest pause between two attempts to store a batch the store refused."
    )
    dead_letters_max: int = Field(
        1000, ge=1, description="Requests kept as files after they could not be decoded or stored; then the oldest go."
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A range with its rows, ready to store."""

    taken: SealedRange
    spans: pa.RecordBatch
    content: pa.RecordBatch
    log_events: pa.RecordBatch


class _Fate(Enum):
    """What became of a request whose range failed."""

    GOOD = "stands alone"
    ASIDE = "set aside"
    OPEN = "the program stopped first"


class PipelineObserver(Protocol):
    """What the pipeline tells telemetry. Batches, durations in seconds and counts, never payload."""

    def decoded(
        self, *, frames: int, bytes_: int, spans: int, rejected: int, ignored_logs: int, seconds: float
    ) -> None: ...
    def processed(self, spans: pa.RecordBatch, *, seconds: float) -> None: ...
    def inserted(self, *, spans: int, content: int, log_events: int, seconds: float) -> None: ...
    def insert_failed(self, *, reason: str) -> None: ...
    def dead_lettered(self, *, frames: int, reason: str) -> None: ...


class Pacer:
    """Decides when to take the next range: at once after a pause, else by age or bytes."""

    def __init__(self, config: PipelineConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._last_taken_s = float("-inf")

    def remaining_s(self, pending_bytes: int) -> float:
        """Seconds to go on gathering, 0 to take what is there."""
        if pending_bytes >= self._config.batch_bytes:
            return 0.0
        return max(0.0, self._last_taken_s + self._config.batch_age_s - self._clock())

    def took(self) -> None:
        self._last_taken_s = self._clock()


class DeadLetterFiles:
    """Requests that can never be stored, kept as protobuf files for a person to look at."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def put(self, taken: SealedRange, frame: Frame, reason: str) -> str:  # noqa: ARG002 - the log line has it
        self._directory.mkdir(parents=True, exist_ok=True)
        token = re.sub(r"[^0-9A-Za-z-]", "-", taken.token)
        name = f"{frame.received_unix_nano:020d}-{token}-{frame.seq}.{frame.signal}.binpb"
        path = self._directory / name
        path.write_bytes(frame.body)
        for old in sorted(self._directory.glob("*.binpb"))[: -self._keep]:
            old.unlink(missing_ok=True)
        return str(path)


class Pipeline:
    """Moves sealed ranges from the journal into the sink until it is stopped.

    `on_stored` is called with the stored batches before the range is forgotten, from the storing thread.
    `on_idle` is called from the same thread once nothing has come for some seconds. `rows_version` names whatever
    decides which rows a range becomes. It is part of the token: after an upgrade in the middle of a range the store
    takes the new rows, and their keys absorb the old ones, instead of dropping some.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        journal: Journal,
        decoder: Decoder,
        processors: Sequence[Processor],
        sink: Sink,
        observer: PipelineObserver,
        dead_letters: DeadLetters,
        clock: Callable[[], float],
        on_stored: Callable[[pa.RecordBatch, pa.RecordBatch], None],
        on_idle: Callable[[], None] = lambda: None,
        rows_version: str,
    ) -> None:
        self._rows_version = rows_version
        self._config = config
        self._journal = journal
        self._decoder = decoder
        self._processors = processors
        self._sink = sink
        self._observer = observer
        self._dead_letters = dead_letters
        self._clock = clock
        self._on_stored = on_stored
        self._on_idle = on_idle
        self._pacer = Pacer(config, clock)
        self._stop = threading.Event()
        self._room = threading.Semaphore(_RANGES_MAX)
        self._prepared: queue.SimpleQueue[Prepared | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._prepare_loop, name="spanwise-prepare", daemon=True),
            threading.Thread(target=self._store_loop, name="spanwise-store", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Store what is already prepared, take nothing new. True if it finished in time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s / 2)
        return not any(thread.is_alive() for thread in self._threads)

    # Preparing

    def _prepare_loop(self) -> None:
        while not self._stop.is_set():
            if not self._room.acquire(timeout=_IDLE_WAIT_S):
                continue
            if not self._prepare_next():
                self._room.release()
        self._prepared.put(None)

    def _prepare_next(self) -> bool:
        """True if a range was handed over."""
        try:
            taken = self._take()
            prepared = self._prepare(taken) if taken is not None else None
        except Exception as error:  # a journal that cannot record the range: it is taken again
            log.warning("take_failed", exc_info=error)
            self._stop.wait(_FAILED_WAIT_S)
            return False
        if prepared is None:
            return False
        self._prepared.put(prepared)
        return True

    def _take(self) -> SealedRange | None:
        if self._journal.pending_bytes:
            while not self._stop.is_set() and self._pacer.remaining_s(self._journal.pending_bytes) > 0:
                self._stop.wait(_POLL_S)
            if self._stop.is_set():
                return None
        taken = self._journal.seal(bytes_max=self._config.batch_bytes, timeout_s=_IDLE_WAIT_S)
        if taken is not None and not taken.more:
            self._pacer.took()
        return taken

    def _prepare(self, taken: SealedRange) -> Prepared | None:
        """The rows of a range; a request that breaks a stage is set aside, the others go on without it."""
        frames = taken.frames
        try:
            return self._rows(taken, frames)
        except Exception as error:  # whatever a payload does to a stage, it must not stop the program
            log.error("range_failed", frames=len(frames), exc_info=error)
        alone = [self._alone(taken, frame) for frame in frames]
        good = tuple(frame for frame, fate in zip(frames, alone, strict=True) if fate is _Fate.GOOD)
        if _Fate.OPEN in alone:
            return None
        if good and len(good) < len(frames):
            try:
                return self._rows(taken, good)
            except Exception as error:
                log.error("range_failed_again", frames=len(good), exc_info=error)
        # Each request stands alone but not together: a defect of ours. Keep the data and go on.
        if self._set_aside(taken, good, "decode"):
            self._journal.done(taken)
        return None

    def _alone(self, taken: SealedRange, frame: Frame) -> _Fate:
        try:
            self._rows(taken, (frame,))
        except Exception as error:
            log.error("request_failed", bytes=len(frame.body), exc_info=error)
            return _Fate.ASIDE if self._set_aside(taken, (frame,), "decode") else _Fate.OPEN
        return _Fate.GOOD

    def _rows(self, taken: SealedRange, frames: tuple[Frame, ...]) -> Prepared:
        started = self._clock()
        decoded = self._decoder.decode([(f.tenant, f.received_unix_nano, f.signal, f.body) for f in frames])
        decoded_at = self._clock()
        spans = decoded.spans
        for process in self._processors:
            spans = process(spans)
        self._observer.decoded(
            frames=len(frames),
            bytes_=sum(len(frame.body) for frame in frames),
            spans=decoded.spans.num_rows,
            rejected=decoded.rejected,
            ignored_logs=decoded.ignored_logs,
            seconds=decoded_at - started,
        )
        self._observer.processed(spans, seconds=self._clock() - decoded_at)
        return Prepared(taken, spans, decoded.content, decoded.log_events)

    # Storing

    def _store_loop(self) -> None:
        while self._store_next():
            self._room.release()

    def _store_next(self) -> bool:
        """False at the end."""
        try:
            prepared = self._prepared.get(timeout=_IDLE_AFTER_S)
        except queue.Empty:
            self._on_idle()
            prepared = self._prepared.get()
        if prepared is None:
            return False
        if self._store(prepared):
            try:
                self._journal.done(prepared.taken)
            except Exception as error:  # the range stays open, and the next start sends it again: same token
                log.warning("forget_failed", exc_info=error)
        return True

    def _store(self, prepared: Prepared) -> bool:
        """True once the range is stored or set aside; False if the program stops first."""
        pause_s = 0.1
        token = f"{prepared.taken.token}:{self._rows_version}"
        while True:
            started = self._clock()
            try:
                refused = self._sink.write(token, prepared.spans, prepared.content, prepared.log_events)
            except RejectedError as error:
                self._observer.insert_failed(reason="rejected")
                log.error("range_rejected_by_store", frames=len(prepared.taken.frames), error=str(error))
                return self._set_aside(prepared.taken, prepared.taken.frames, "store")
            except Exception as error:  # whatever a driver raises, the data stays and is tried again
                self._observer.insert_failed(reason=type(error).__name__)
                log.warning(
                    "insert_failed", retry_in_s=round(pause_s, 1), spans=prepared.spans.num_rows, exc_info=error
                )
                if self._stop.wait(pause_s):
                    return False
                pause_s = min(pause_s * 2, self._config.retry_max_s)
            else:
                self._observer.inserted(
                    spans=prepared.spans.num_rows,
                    content=prepared.content.num_rows,
                    log_events=prepared.log_events.num_rows,
                    seconds=self._clock() - started,
                )
                # The other rows are stored; nobody can tell from a refused row which request it came in.
                if refused and not self._set_aside(prepared.taken, prepared.taken.frames, "rows"):
                    return False
                self._announce(prepared)
                return True

    def _announce(self, prepared: Prepared) -> None:
        try:
            self._on_stored(prepared.spans, prepared.log_events)
        except Exception as error:  # a defect of ours: the rows are stored, and those behind them must be
            log.error("announcement_failed", spans=prepared.spans.num_rows, exc_info=error)

    def _set_aside(self, taken: SealedRange, frames: tuple[Frame, ...], reason: str) -> bool:
        """True once all frames are kept as dead letters; False if the program stops first."""
        for frame in frames:
            while True:
                try:
                    place = self._dead_letters.put(taken, frame, reason)
                except Exception as error:  # a full disk, brokers that are away: what has no place is not forgotten
                    log.warning("set_aside_failed", exc_info=error)
                    if self._stop.wait(_FAILED_WAIT_S):
                        return False
                else:
                    break
            log.error("request_set_aside", reason=reason, place=place, bytes=len(frame.body))
        self._observer.dead_lettered(frames=len(frames), reason=reason)
        return True
