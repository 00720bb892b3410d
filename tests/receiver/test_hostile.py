"""What must not bring the receiver down: bombs, crowds of big bodies, bytes without meaning. Memory is that of a child
process, so the figures are the receiver's alone."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.config import parse_address
from receiver.inflate import STEP_BYTES, Gunzip
from receiver.metrics import count_json, count_protobuf
from tests.receiver.clients import WAYS, RawHttp, Way, ask, ask_grpc, ask_http
from tests.receiver.conftest import Start
from tests.receiver.requests import BUILD, gzip_of_zeros, metrics, otlp_json, protobuf, traces

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
ZIPPED = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}


class Child:
    def __init__(self, options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.receiver.child", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        addresses = json.loads(self._process.stdout.readline())
        self.receiver: Any = SimpleNamespace(
            **{f"{name}_address": parse_address(text) for name, text in addresses.items()}
        )
        self._base = self._status("VmRSS")

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise LookupError(field)

    def peak_growth(self) -> int:
        """Bytes between the resident memory when ready and its highest since."""
        return self._status("VmHWM") - self._base

    def stop(self) -> None:
        self._process.communicate()


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc to measure memory")
    children: list[Child] = []

    def start(**options: Any) -> Child:
        children.append(Child(options))
        return children[-1]

    yield start
    for one in children:
        one.stop()


async def test_a_gzip_bomb_of_1_gib_over_http_costs_no_more_than_the_limit(child: Callable[..., Child]) -> None:
    server = child()
    bomb = gzip_of_zeros(1 << 30)
    assert len(bomb) < 1.1 * MIB

    reply = await ask_http(server.receiver, bomb, headers=ZIPPED)

    assert reply.code == 413
    assert server.peak_growth() < 100 * MIB


async def test_many_bombs_at_once_stay_within_the_budget(child: Callable[..., Child]) -> None:
    server = child(limits={"in_flight_bytes_max": 96 * MIB, "request_bytes_max": 32 * MIB})
    bomb = gzip_of_zeros(1 << 30)

    replies = await asyncio.gather(*(ask_http(server.receiver, bomb, headers=ZIPPED) for _ in range(12)))

    assert {reply.code for reply in replies} <= {413, 503}
    assert server.peak_growth() < (96 + 64) * MIB
    assert (await ask(server.receiver, "http-protobuf", traces())).ok


async def test_a_gzip_bomb_over_grpc_costs_no_more_than_the_limit(child: Callable[..., Child]) -> None:
    server = child(limits={"request_bytes_max": 16 * MIB})

    reply = await ask_grpc(server.receiver, bytes(256 * MIB), zipped=True, timeout_s=60)

    assert (reply.code, reply.hints_s) == ("RESOURCE_EXHAUSTED", ())
    assert server.peak_growth() < 64 * MIB


@pytest.mark.parametrize("way", ["grpc", "http-protobuf"])
async def test_a_crowd_of_big_bodies_stays_within_the_budget(child: Callable[..., Child], way: Way) -> None:
    server = child(
        hold=True,
        limits={
            "request_bytes_max": 8 * MIB,
            "in_flight_bytes_max": 32 * MIB,
            "waiting_bytes_max": 32 * MIB,
            "ack_timeout_s": 1,
        },
    )
    body = protobuf(traces(1, text="x" * (8 * MIB - 1000)))

    replies = await asyncio.gather(*(ask(server.receiver, way, body) for _ in range(60)))

    assert {reply.code for reply in replies} == {"UNAVAILABLE" if way == "grpc" else 503}
    assert {reply.hints_s for reply in replies} == {(1.0, 1.0)}
    assert server.peak_growth() < (2 * 2 * 32 + 32 + 64) * MIB, (
        "read ahead, in gRPC's copy and in ours; waiting; the process itself"
    )


async def test_half_sent_requests_do_not_keep_others_out(start: Start) -> None:
    receiver = await start(limits={"in_flight_bytes_max": 96 * MIB, "body_timeout_s": 2})
    async with contextlib.AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(RawHttp(receiver)) for _ in range(50)]
        for sender in senders:
            await sender.head(length=MIB)
            await sender.send(b"x")

        for way in WAYS:
            assert (await ask(receiver, way, traces())).ok
        for sender in senders:
            assert (await sender.reply()).code == 503
    assert receiver.admission.in_flight_bytes == 0


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_gunzip_survives_any_bytes_in_any_pieces(data: bytes, cuts: int) -> None:
    gunzip = Gunzip()
    step = max(1, len(data) // (cuts + 1))
    try:
        for start in range(0, len(data), step):
            assert all(len(piece) <= STEP_BYTES for piece in gunzip.feed(data[start : start + step]))
        gunzip.finish()
    except ValueError:
        pass


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3 * STEP_BYTES), max_size=4), st.integers(1, 5000))
def test_gunzip_gives_back_all_of_it_in_small_steps(runs: list[int], piece: int) -> None:
    plain = b"".join(bytes([index]) * size for index, size in enumerate(runs))
    packed = gzip.compress(plain)
    gunzip = Gunzip()

    steps = [step for at in range(0, len(packed), piece) for step in gunzip.feed(packed[at : at + piece])]
    gunzip.finish()

    assert b"".join(steps) == plain
    assert all(len(step) <= STEP_BYTES for step in steps)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_counting_data_points_survives_any_bytes(data: bytes) -> None:
    for count in (partial(count_protobuf, data, items_max=10), partial(count_json, data)):
        with contextlib.suppress(ValueError):
            assert count() >= 0


@pytest.mark.parametrize("points", [0, 1, 7, 300])
def test_data_points_are_counted_exactly(points: int) -> None:
    request = metrics(points)
    kinds = request.resource_metrics[0].scope_metrics[0].metrics
    for name in ("gauge", "histogram", "exponential_histogram", "summary"):
        getattr(kinds.add(), name).data_points.add()

    assert count_protobuf(protobuf(request), items_max=1000) == points + 4
    assert count_json(otlp_json(request)) == points + 4


def test_a_million_empty_messages_are_too_many_before_they_are_walked() -> None:
    assert count_protobuf(b"\x0a\x00" * 1_000_000, items_max=100) == 101


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("service", ["traces", "logs", "metrics"])
async def test_mutated_requests_are_answered_and_the_receiver_lives(start: Start, way: Way, service: str) -> None:
    receiver = await start()
    seed = random.Random(f"{way} {service}")
    valid = (otlp_json if way == "http-json" else protobuf)(BUILD[service](3))
    allowed = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", 200, 400, 413}

    async def mutated() -> None:
        body = bytearray(valid)
        for _ in range(seed.randint(1, 4)):
            action, at = seed.randrange(3), seed.randrange(len(body))
            if action == 0:
                body[at] = seed.randrange(256)
            elif action == 1:
                del body[at : at + seed.randrange(8)]
            else:
                body[at:at] = seed.randbytes(seed.randrange(8))
            body = body or bytearray(b"{")
        assert (await ask(receiver, way, bytes(body), service=service)).code in allowed

    for _ in range(5):
        await asyncio.gather(*(mutated() for _ in range(10)))
    assert (await ask(receiver, way, BUILD[service](1), service=service)).ok
    assert receiver.admission.in_flight_bytes == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
async def test_bytes_that_are_not_http_never_crash_the_connection(start: Start, data: bytes) -> None:
    receiver = await start(limits={"header_timeout_s": 0.05})
    async with RawHttp(receiver) as sender:
        await sender.send(data)
        await sender.closed()
    assert (await ask(receiver, "http-json", traces())).ok
