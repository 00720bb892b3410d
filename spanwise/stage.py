"""What stages promise each other: frames in, two kinds of error, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pyarrow as pa

from spanwise.model import Signal, SpanBatch


class RejectedError(Exception):
    """This input will always fail. Say so to whoever sent it, count it, carry on; never retry it."""


class OverloadedError(Exception):
    """There is no room now. The sender keeps the data and tries again in about a second."""


class Frame(NamedTuple):
    """One accepted export request, as the journal keeps it."""

    seq: int
    """Position in its journal file, growing."""
    tenant: str
    received_unix_nano: int
    signal: Signal
    items: int
    """Spans or log records in `body`."""
    body: bytes
    """Protobuf `ExportTraceServiceRequest` or `ExportLogsServiceRequest`, not compressed."""


class Changed(NamedTuple):
    """What a journal had to change to keep a request; its sender is told."""

    left_out: int
    """Items that are too large to be kept."""
    message: str


@dataclass(frozen=True, slots=True)
class SealedRange:
    """Frames that are processed and stored together, the same ones again after a crash."""

    token: str
    """Identity of the range: equal after a crash, never reused for other frames."""
    frames: tuple[Frame, ...]
    more: bool = False
    """Other ranges were gathered together with it: take them without waiting again."""

    @property
    def bytes(self) -> int:
        return sum(len(frame.body) for frame in self.frames)


class Journal(Protocol):
    """Where accepted requests are durable until they are stored.

    `append` is asynchronous and may be awaited by many callers at once; every other method is called from the
    pipeline's threads and may block.
    """

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> Changed | None:
        """Return once the request is durable; None if it is so as it came.

        Raises OverloadedError if the journal is full or failing, RejectedError if it can never keep the request.
        """

    def seal(self, *, bytes_max: int, timeout_s: float) -> SealedRange | None:
        """Take the next frames, up to `bytes_max` (at least one), waiting up to `timeout_s` for the first.

        The range is recorded before it is returned. Ranges left open by a crash come first, unchanged.
        """

    @property
    def pending_bytes(self) -> int:
        """Bytes of frames that are durable but not sealed yet. Cheap: called many times a second."""

    def done(self, taken: SealedRange) -> None:
        """Forget a range whose rows are stored."""

    def close(self) -> None:
        """Finish the running commit and refuse what comes after."""


class DeadLetters(Protocol):
    """Where requests go that can never be decoded or stored, for a person to look at."""

    def put(self, taken: SealedRange, frame: Frame, reason: str) -> str:
        """Keep a request durably and return where. Raises if that does not work now."""


class Processor(Protocol):
    """A stage: pure, synchronous, one batch in, one batch out."""

    def __call__(self, batch: SpanBatch) -> SpanBatch: ...


class Sink(Protocol):
    """Where batches go. Called from one thread at a time."""

    def write(self, token: str, spans: SpanBatch, content: pa.RecordBatch, log_events: pa.RecordBatch) -> int:
        """Store the rows or raise; the same token again stores nothing twice.

        Returns how many single rows were left out because they can never be stored. Raises RejectedError if these rows
        can never be stored at all; anything else may work later and is retried.
        """
