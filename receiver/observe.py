"""What the receiver tells whoever counts."""

from __future__ import annotations

from typing import Protocol

from receiver.answer import Transport
from spanwise.model import Signal


class ReceiverObserver(Protocol):
    """Called from the event loop, once for each outcome; must not block. `spanwise.telemetry.Telemetry` is one.

    All labels come from small fixed sets; `signal` is also `metrics`, or `none` where the path names no service.
    """

    def accepted(self, signal: Signal, transport: Transport, items: int, body_bytes: int, seconds: float) -> None: ...
    def refused(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None: ...
    def rejected(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None: ...
    def rejected_items(self, signal: str, transport: Transport, reason: str, items: int) -> None: ...
    def inflight_bytes(self, value: int) -> None: ...


class Unobserved:
    """Counts nothing."""

    def accepted(self, signal: Signal, transport: Transport, items: int, body_bytes: int, seconds: float) -> None:
        pass

    def refused(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None:
        pass

    def rejected(self, signal: str, transport: Transport, reason: str, items: int = 0) -> None:
        pass

    def rejected_items(self, signal: str, transport: Transport, reason: str, items: int) -> None:
        pass

    def inflight_bytes(self, value: int) -> None:
        pass
