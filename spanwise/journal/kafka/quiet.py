"""The client's own log lines, each kind once in a while: while brokers are away it writes ten a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

_AGAIN_S: Final = 30.0
_KINDS_MAX: Final = 500
_LOGGERS: Final = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
    "aiokafka.admin.client",
)


class Seldom(logging.Filter):
    """Lets a kind of line, known by its text without arguments, through once in `_AGAIN_S`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = (record.name, str(record.msg)), self._monotonic()
        if now - self._told.get(kind, float("-inf")) < _AGAIN_S:
            return False
        if len(self._told) >= _KINDS_MAX:
            self._told.clear()
        self._told[kind] = now
        return True


_seldom = Seldom()


def hush() -> None:
    """Filter the client's loggers; again and again is the same as once."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_seldom)
