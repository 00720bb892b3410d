"""Decides how many bytes may be in the process at once. No I/O: it counts, and it wakes who may go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from receiver.answer import Kind, RefusedError

_UNREAD_BYTES: Final = 64 << 10
"""A body nobody reads stays with its sender, but for about this much."""


def _refused(reason: str, message: str) -> RefusedError:
    return RefusedError(Kind.UNAVAILABLE, reason, message)


class Slot:
    """The bytes one request may hold. Released once, after the request and what it left running are over."""

    def __init__(self, admission: Admission) -> None:
        self.bytes = 0
        self._admission = admission
        self._outlived_by: asyncio.Future[None] | None = None

    async def grow(self, size: int) -> None:
        """Hold `size` bytes, waiting a moment for them. Raises RefusedError if they do not become free."""
        if size > self.bytes:
            await self._admission.take(size - self.bytes, held=size - self.bytes)
            self.bytes = size

    def try_grow(self, size: int) -> bool:
        """Hold `size` bytes if they are free now."""
        if size > self.bytes:
            if not self._admission.take_now(size - self.bytes):
                return False
            self.bytes = size
        return True

    def shrink(self, size: int) -> None:
        if size < self.bytes:
            self._admission.give_back(self.bytes - size)
            self.bytes = size

    def keep_until(self, running: asyncio.Future[Any]) -> None:
        """Count the bytes until `running` ends, even if the request ends before: the journal still holds them."""
        self._outlived_by = running

    def release(self) -> None:
        running, self._outlived_by = self._outlived_by, None
        if running is not None and not running.done():
            running.add_done_callback(lambda _: self.release())
            return
        self.shrink(0)
        self._admission.forget(self)


class Admission:
    """A budget of bytes in flight with a bounded waiting room.

    The newest waiter goes first: under overload the oldest is the one whose sender has most likely given up. Nobody
    waits longer than `wait_s`, so a refusal is quick.
    """

    def __init__(self, *, in_flight_bytes_max: int, waiting_bytes_max: int, wait_s: float) -> None:
        self.in_flight_bytes = 0
        self.waiting_bytes = 0
        self.refused = 0
        self.draining = False
        self._in_flight_bytes_max = in_flight_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
        self._wait_s = wait_s
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}
        self._open: set[Slot] = set()
        self._emptied: asyncio.Event = asyncio.Event()

    @property
    def requests(self) -> int:
        """Requests that hold a slot."""
        return len(self._open)

    async def reserve(self, size: int) -> Slot:
        """A slot of `size` bytes. Raises RefusedError while draining or when there is no room."""
        if self.draining:
            self.refused += 1
            raise _refused("draining", "the server is stopping; try again in a second")
        slot = Slot(self)
        self._open.add(slot)
        try:
            await self.take(size, held=min(size, _UNREAD_BYTES))
            slot.bytes = size
        except BaseException:
            self.forget(slot)
            raise
        return slot

    def take_now(self, size: int) -> bool:
        if self.in_flight_bytes + size > self._in_flight_bytes_max:
            return False
        self.in_flight_bytes += size
        return True

    async def take(self, size: int, *, held: int) -> None:
        """`held` are the bytes that the waiting itself costs."""
        if self.take_now(size):
            return
        if self.waiting_bytes + held <= self._waiting_bytes_max:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[turn] = (size, held)
            self.waiting_bytes += held
            try:
                await _within(turn, self._wait_s)
            except BaseException:
                if _granted(turn):
                    self.give_back(size)
                raise
            finally:
                self._leave(turn)
            # not the result of the wait: the time can be up in the same turn of the loop that granted it
            if _granted(turn):
                return
        self.refused += 1
        raise _refused("overloaded", "too many bytes are in flight; try again in a second")

    def give_back(self, size: int) -> None:
        self.in_flight_bytes -= size
        while self._waiting:
            turn, (wanted, _) = next(reversed(self._waiting.items()))
            if not turn.done():
                if not self.take_now(wanted):
                    return
                turn.set_result(None)
            self._leave(turn)

    def _leave(self, turn: asyncio.Future[None]) -> None:
        self.waiting_bytes -= self._waiting.pop(turn, (0, 0))[1]

    def forget(self, slot: Slot) -> None:
        self._open.discard(slot)
        if not self._open:
            self._emptied.set()

    async def drain(self, grace_s: float) -> bool:
        """Refuse what is new and wait for what is open; True if all of it ended within `grace_s`."""
        self.draining = True
        if not self._open:
            return True
        self._emptied.clear()
        return await _within(self._emptied.wait(), grace_s)


def _granted(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled()


async def _within(awaitable: Awaitable[object], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return False
    return True
