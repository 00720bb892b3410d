"""Stopping in good order: nobody who was let in is dropped, nobody new is kept waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.receiver.clients import WAYS, Reply, Way, ask
from tests.receiver.conftest import Start
from tests.receiver.doubles import Counted, MemoryJournal, until
from tests.receiver.requests import traces


@pytest.mark.parametrize("way", WAYS)
async def test_while_draining_the_admitted_finish_and_the_new_are_sent_away(
    start: Start, journal: MemoryJournal, counted: Counted, way: Way
) -> None:
    receiver = await start(drain_s=10)
    journal.gate = asyncio.Event()
    admitted = asyncio.create_task(ask(receiver, way, traces()))
    await until(lambda: journal.waiting == 1)

    drained = asyncio.create_task(receiver.drain())
    await asyncio.sleep(0.01)
    refused = await ask(receiver, way, traces())
    journal.gate.set()

    assert (await admitted).ok
    assert (refused.code, refused.hints_s) == ("UNAVAILABLE" if way == "grpc" else 503, (1.0, 1.0))
    assert await drained
    assert len(journal.frames) == 1
    assert counted.refusals == {("traces", way.split("-")[0], "draining"): 1}


def _health(channel: grpc.aio.Channel) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Check


async def test_health_turns_not_serving_while_the_port_is_still_open(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(drain_s=10)
    journal.gate = asyncio.Event()
    admitted = asyncio.create_task(ask(receiver, "grpc", traces()))
    await until(lambda: journal.waiting == 1)
    drained = asyncio.create_task(receiver.drain())

    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        health = await _health(channel)(health_pb2.HealthCheckRequest())
    journal.gate.set()
    await asyncio.gather(admitted, drained)

    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_journal_that_hangs_does_not_hold_up_the_stop(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(drain_s=0.05)
    journal.gate = asyncio.Event()
    stuck = asyncio.create_task(ask(receiver, "http-protobuf", traces()))
    await until(lambda: journal.waiting == 1)

    assert not await receiver.drain()

    journal.gate.set()
    await asyncio.gather(stuck, return_exceptions=True)


async def test_under_load_every_sender_gets_an_answer_and_only_kept_data_is_acknowledged(
    start: Start, journal: MemoryJournal
) -> None:
    receiver = await start(drain_s=10)
    replies: list[Reply] = []
    stop = asyncio.Event()

    async def sender(way: Way) -> None:
        while not stop.is_set():
            reply = await ask(receiver, way, traces(5))
            replies.append(reply)
            if not reply.ok:
                return

    senders = [asyncio.create_task(sender(way)) for way in WAYS * 3]
    await until(lambda: len(replies) >= 50)
    open_slot = await receiver.admission.reserve(1)
    drained = asyncio.create_task(receiver.drain())
    await asyncio.gather(*senders)
    open_slot.release()

    assert await drained
    assert sum(reply.ok for reply in replies) <= len(journal.frames)
    assert {reply.code for reply in replies if not reply.ok} == {"UNAVAILABLE", 503}
    assert all(reply.hints_s == (1.0, 1.0) for reply in replies if not reply.ok)
