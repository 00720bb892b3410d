"""gRPC beyond one request and its answer: streams, slow bodies, health, reflection."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from receiver import Receiver
from tests.receiver.clients import Reply, ask_grpc, refused_grpc
from tests.receiver.conftest import Start
from tests.receiver.doubles import Counted, MemoryJournal, until
from tests.receiver.requests import protobuf, traces

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
MIB = 1 << 20


@pytest.fixture
async def channel(receiver: Receiver) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        yield channel


def unary(channel: grpc.aio.Channel, method: str = EXPORT) -> Any:
    return channel.unary_unary(method)


async def stream(channel: grpc.aio.Channel, messages: list[bytes]) -> Reply:
    try:
        call: Any = channel.stream_unary(EXPORT)
        await call(iter(messages), timeout=10)
    except grpc.aio.AioRpcError as error:
        return refused_grpc(error)
    return Reply("OK")


async def test_a_second_message_is_an_error_and_nothing_is_kept(
    channel: grpc.aio.Channel, journal: MemoryJournal
) -> None:
    reply = await stream(channel, [protobuf(traces()), protobuf(traces())])

    assert (reply.code, reply.bad_request) == ("INVALID_ARGUMENT", True)
    assert journal.frames == []


async def test_a_call_without_a_message_is_an_error(channel: grpc.aio.Channel, counted: Counted) -> None:
    assert (await stream(channel, [])).code == "INVALID_ARGUMENT"
    assert counted.rejections == {("traces", "grpc", "invalid_request"): 1}


async def test_a_message_over_the_limit_is_counted_though_grpc_answers_it(start: Start, counted: Counted) -> None:
    receiver = await start(limits={"request_bytes_max": MIB})

    reply = await ask_grpc(receiver, bytes(2 * MIB))

    assert reply.code == "RESOURCE_EXHAUSTED"
    assert counted.rejections == {("traces", "grpc", "too_large"): 1}
    assert receiver.admission.in_flight_bytes == 0


async def test_unauthenticated_comes_before_the_message(start: Start, counted: Counted) -> None:
    receiver = await start(tokens=[{"tenant": "a", "sha256": hashlib.sha256(b"secret").hexdigest()}])
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        call: Any = channel.stream_unary(EXPORT)(timeout=10)

        # no message is ever sent
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED

    assert counted.inflight_most == 0


async def test_a_message_that_never_comes_is_refused_and_its_bytes_are_free_again(
    start: Start, counted: Counted
) -> None:
    receiver = await start(limits={"body_timeout_s": 0.1})
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        call: Any = channel.stream_unary(EXPORT)(timeout=10)

        assert await call.code() == grpc.StatusCode.UNAVAILABLE

    assert counted.refusals == {("traces", "grpc", "slow_body"): 1}
    assert receiver.admission.in_flight_bytes == 0


async def test_a_call_that_is_not_ended_is_refused_and_nothing_is_kept(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(limits={"body_timeout_s": 0.1})
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        call: Any = channel.stream_unary(EXPORT)(timeout=10)
        await call.write(protobuf(traces()))

        assert await call.code() == grpc.StatusCode.UNAVAILABLE

    assert journal.frames == []


async def test_slow_messages_are_covered_for_their_biggest_size_or_refused(start: Start, counted: Counted) -> None:
    receiver = await start(
        limits={"request_bytes_max": 8 * MIB, "in_flight_bytes_max": 28 * MIB, "waiting_bytes_max": 0}
    )
    admission = receiver.admission
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        calls: list[Any] = [channel.stream_unary(EXPORT)(timeout=60) for _ in range(5)]
        await until(lambda: admission.requests == 5)
        await until(lambda: admission.requests < 5 and admission.in_flight_bytes == admission.requests * 8 * MIB)
        awaited = admission.requests
        assert awaited in (2, 3), "the bytes of one that was refused may be there in time for the next"

        done, waiting = set(), {asyncio.ensure_future(call.code()) for call in calls}
        while len(waiting) > awaited:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert [code.result() for code in done] == [grpc.StatusCode.UNAVAILABLE] * (5 - awaited)
        assert (await ask_grpc(receiver, protobuf(traces()))).ok
        for call in calls:
            call.cancel()
        await asyncio.wait(waiting)

    await until(lambda: admission.in_flight_bytes == 0)
    assert counted.refusals == {("traces", "grpc", "overloaded"): 5 - awaited}


async def test_a_sender_that_gives_up_does_not_stop_the_journal_and_its_bytes_count_on(
    receiver: Receiver, journal: MemoryJournal
) -> None:
    journal.gate = asyncio.Event()
    body = protobuf(traces())

    assert (await ask_grpc(receiver, body, timeout_s=0.1)).code == "DEADLINE_EXCEEDED"
    await until(lambda: receiver.admission.in_flight_bytes == len(body))
    journal.gate.set()
    await until(lambda: receiver.admission.in_flight_bytes == 0)

    assert [frame.body for frame in journal.frames] == [body]


@pytest.mark.parametrize("method", ["/opentelemetry.proto.collector.trace.v1.TraceService/Import", "/a.B/C"])
async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unary(channel, method)(b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_other_compressions_are_unimplemented(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unary(channel)(protobuf(traces(100)), compression=grpc.Compression.Deflate)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", "opentelemetry.proto.collector.trace.v1.TraceService"])
async def test_health_is_serving(channel: grpc.aio.Channel, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_is_an_option(start: Start) -> None:
    async def services(receiver: Receiver) -> list[str]:
        async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
            stubs: Any = reflection_pb2_grpc
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            stub = stubs.ServerReflectionStub(channel)
            async for reply in stub.ServerReflectionInfo(iter([request])):
                return [service.name for service in reply.list_services_response.service]
        return []

    assert "opentelemetry.proto.collector.trace.v1.TraceService" in await services(await start(reflection=True))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await services(await start())
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_connections_over_the_cap_are_turned_away(start: Start) -> None:
    receiver = await start(limits={"connections_max": 2})
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(str(receiver.grpc_address), options=options) for _ in range(3)]
    try:
        for channel in channels[:2]:
            await unary(channel)(b"", timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await unary(channels[2])(b"", timeout=5)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        for channel in channels:
            await channel.close()


async def test_a_port_in_use_stops_the_start_and_leaves_the_other_free(start: Start) -> None:
    receiver = await start()

    with pytest.raises(OSError, match=r"cannot listen on .* \(grpc\)"):
        await start(grpc=str(receiver.grpc_address))
    with pytest.raises(OSError, match=r"cannot listen on .* \(http\)"):
        await start(http=str(receiver.http_address))


async def test_an_old_connection_is_ended_and_what_runs_on_it_is_answered(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(limits={"connection_age_s": 0.2})
    journal.gate = asyncio.Event()
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        running = asyncio.ensure_future(unary(channel)(protobuf(traces()), timeout=10))
        await until(lambda: journal.waiting == 1)
        async with asyncio.timeout(10):
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        journal.gate.set()

        await running
        await unary(channel)(protobuf(traces()), timeout=10)

    assert len(journal.frames) == 2


async def test_a_watcher_of_health_does_not_keep_an_old_connection(start: Start) -> None:
    receiver = await start(limits={"connection_age_s": 0.1, "body_timeout_s": 0.1, "ack_timeout_s": 0.1})
    async with grpc.aio.insecure_channel(str(receiver.grpc_address)) as channel:
        watching: Any = health_pb2_grpc.HealthStub(channel)
        watch = watching.Watch(health_pb2.HealthCheckRequest())
        await watch.read()

        assert await watch.code() == grpc.StatusCode.UNAVAILABLE
