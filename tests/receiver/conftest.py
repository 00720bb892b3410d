from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from receiver import Receiver, ReceiverConfig
from tests.receiver.doubles import Counted, MemoryJournal

Start = Callable[..., Awaitable[Receiver]]


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
async def start(journal: MemoryJournal, counted: Counted) -> AsyncIterator[Start]:
    """Starts receivers on free ports, with these options and limits over the defaults."""
    running: list[Receiver] = []

    async def start(*, limits: dict[str, Any] | None = None, **options: Any) -> Receiver:
        config = ReceiverConfig.model_validate(
            {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "drain_s": 0.2, "limits": limits or {}, **options}
        )
        receiver = Receiver(config, journal, counted)
        await receiver.start()
        running.append(receiver)
        return receiver

    yield start
    for receiver in running:
        await receiver.drain()


@pytest.fixture
async def receiver(start: Start) -> Receiver:
    return await start()
