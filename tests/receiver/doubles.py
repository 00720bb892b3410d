"""A journal that can be told to misbehave, and an observer that remembers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from receiver.answer import Transport
from spanwise.model import Signal
from spanwise.stage import OverloadedError


class Appended(NamedTuple):
    tenant: str
    signal: Signal
    items: int
    body: bytes


class MemoryJournal:
    """Keeps what it is given. `error` makes it refuse, `gate` makes it wait, `refusals_left` makes it heal."""

    def __init__(self) -> None:
        self.frames: list[Appended] = []
        self.error: Exception | None = None
        self.refusals_left = 0
        self.gate: asyncio.Event | None = None
        self.waiting = 0

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> None:
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()
            self.waiting -= 1
        if self.refusals_left:
            self.refusals_left -= 1
            raise OverloadedError("the journal is full")
        if self.error is not None:
            raise self.error
        self.frames.append(Appended(tenant, signal, items, body))


async def until(condition: Callable[[], bool]) -> None:
    """Returns once it holds; the test's own timeout ends what never does."""
    while not condition():  # noqa: ASYNC110 - what is waited for lies in the code under test
        await asyncio.sleep(0.001)


class Counted:
    """Counts outcomes by (signal, transport, reason)."""

    def __init__(self) -> None:
        self.accepted_items: Counter[tuple[str, str]] = Counter()
        self.refusals: Counter[tuple[str, str, str]] = Counter()
        self.rejections: Counter[tuple[str, str, str]] = Counter()
        self.left_out: Counter[tuple[str, str, str]] = Counter()
        self.ack_seconds: list[float] = []
        self.inflight_most = 0
        self.inflight_last = 0

    def accepted(self, signal: Signal, transport: Transport, items: int, body_bytes: int, seconds: float) -> None:
        self.accepted_items[signal, transport] += items
        self.ack_seconds.append(seconds)

    def refused(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None:
        self.refusals[signal, transport, reason] += 1

    def rejected(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None:
        self.rejections[signal, transport, reason] += 1

    def rejected_items(self, signal: str, transport: Transport, reason: str, items: int) -> None:
        self.left_out[signal, transport, reason] += items

    def inflight_bytes(self, value: int) -> None:
        self.inflight_last = value
        self.inflight_most = max(self.inflight_most, value)
