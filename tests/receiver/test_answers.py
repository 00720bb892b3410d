"""OTLP 1.11: what every outcome looks like on the wire, over gRPC, HTTP with protobuf and HTTP with JSON."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver import Receiver
from spanwise.stage import OverloadedError, RejectedError
from tests.receiver.clients import WAYS, Way, ask
from tests.receiver.conftest import Start
from tests.receiver.doubles import Counted, MemoryJournal
from tests.receiver.requests import BUILD, metrics, otlp_json, protobuf, traces

pytestmark = pytest.mark.parametrize("way", WAYS)


def code(way: Way, grpc: str, http: int) -> str | int:
    return grpc if way == "grpc" else http


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("service", ["traces", "logs"])
async def test_full_success_is_ok_without_partial_success_and_the_journal_has_protobuf(
    receiver: Receiver, journal: MemoryJournal, way: Way, service: str, zipped: bool
) -> None:
    request = BUILD[service](3)

    reply = await ask(receiver, way, request, service=service, zipped=zipped)

    assert reply.ok
    assert not reply.has_partial_success
    [frame] = journal.frames
    assert (frame.tenant, frame.signal, frame.items) == ("default", service, 3)
    assert type(request).FromString(frame.body) == request


@pytest.mark.parametrize("service", ["traces", "logs", "metrics"])
async def test_an_empty_request_is_a_success_and_leaves_nothing(
    receiver: Receiver, journal: MemoryJournal, way: Way, service: str
) -> None:
    reply = await ask(receiver, way, BUILD[service](0), service=service)

    assert reply.ok
    assert not reply.has_partial_success
    assert journal.frames == []


async def test_a_bad_span_is_rejected_alone_with_a_count_and_a_sentence(
    receiver: Receiver, journal: MemoryJournal, counted: Counted, way: Way
) -> None:
    reply = await ask(receiver, way, traces(2, bad=1))

    assert (reply.ok, reply.rejected) == (True, 1)
    assert reply.warning.startswith("1 of 3 spans rejected: span 2: ")
    assert [frame.items for frame in journal.frames] == [3]
    transport = way.split("-")[0]
    assert counted.left_out == {("traces", transport, "invalid_item"): 1}
    assert counted.accepted_items == {("traces", transport): 2}


async def test_a_request_of_only_bad_spans_is_partial_success_and_not_kept(
    receiver: Receiver, journal: MemoryJournal, way: Way
) -> None:
    reply = await ask(receiver, way, traces(0, bad=8))

    assert (reply.ok, reply.rejected) == (True, 8)
    assert reply.warning.endswith(", ...")
    assert journal.frames == []


@pytest.mark.parametrize("points", [1, 1000])
async def test_metrics_are_all_rejected_with_one_sentence(
    receiver: Receiver, journal: MemoryJournal, way: Way, points: int
) -> None:
    reply = await ask(receiver, way, metrics(points), service="metrics")

    assert (reply.ok, reply.rejected) == (True, points)
    assert reply.warning == "Spanwise keeps no metrics: send only traces and logs here"
    assert journal.frames == []


@pytest.mark.parametrize("service", ["traces", "logs", "metrics"])
async def test_garbage_is_bad_data_that_is_not_tried_again(
    receiver: Receiver, journal: MemoryJournal, way: Way, service: str
) -> None:
    reply = await ask(receiver, way, b"\x0a\xff\xff\xff\xff\x07 not a message", service=service)

    assert reply.code == code(way, "INVALID_ARGUMENT", 400)
    assert not reply.retryable
    assert reply.bad_request
    assert reply.hints_s == ()
    assert journal.frames == []


@pytest.mark.parametrize("zipped", [False, True])
async def test_a_request_over_the_limit_is_too_large_and_not_retryable(
    start: Start, journal: MemoryJournal, way: Way, zipped: bool
) -> None:
    receiver = await start(limits={"request_bytes_max": 100_000})

    reply = await ask(receiver, way, traces(1, text="x" * 100_000), zipped=zipped)

    assert reply.code == code(way, "RESOURCE_EXHAUSTED", 413)
    assert not reply.retryable
    assert reply.hints_s == ()
    assert journal.frames == []


@pytest.mark.parametrize("limit", ["items_max", "attributes_max"])
async def test_too_many_elements_are_too_large_whatever_their_bytes(
    start: Start, journal: MemoryJournal, way: Way, limit: str
) -> None:
    receiver = await start(limits={limit: 10})

    reply = await ask(receiver, way, traces(11, attributes=1))

    assert reply.code == code(way, "RESOURCE_EXHAUSTED", 413)
    assert reply.hints_s == ()
    assert f"limits.{limit}" in reply.message
    assert journal.frames == []


async def test_too_many_data_points_are_too_large(start: Start, way: Way) -> None:
    receiver = await start(limits={"items_max": 10})

    reply = await ask(receiver, way, metrics(11), service="metrics")

    assert reply.code == code(way, "RESOURCE_EXHAUSTED", 413)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OverloadedError("the journal is full"), "journal_full"), (OSError(5, "input/output error"), "internal_error")],
)
async def test_a_journal_that_cannot_take_it_asks_the_sender_to_come_back_in_one_second(
    receiver: Receiver, journal: MemoryJournal, counted: Counted, way: Way, error: Exception, reason: str
) -> None:
    journal.error = error

    reply = await ask(receiver, way, traces())

    assert reply.code == code(way, "UNAVAILABLE", 503)
    assert reply.retryable
    assert reply.hints_s == (1.0, 1.0), "in google.rpc.retryinfo-bin or Retry-After, and in the status details"
    assert counted.refusals == {("traces", way.split("-")[0], reason): 1}


async def test_what_the_journal_will_never_take_is_bad_data(
    receiver: Receiver, journal: MemoryJournal, way: Way
) -> None:
    journal.error = RejectedError("over the biggest frame")

    reply = await ask(receiver, way, traces())

    assert reply.code == code(way, "INVALID_ARGUMENT", 400)
    assert reply.bad_request
    assert reply.message == "over the biggest frame"


async def test_a_journal_that_hangs_is_answered_for_in_time(
    start: Start, journal: MemoryJournal, counted: Counted, way: Way
) -> None:
    receiver = await start(limits={"ack_timeout_s": 0.05})
    journal.gate = asyncio.Event()

    reply = await ask(receiver, way, traces())

    assert reply.code == code(way, "UNAVAILABLE", 503)
    assert reply.hints_s == (1.0, 1.0)
    assert receiver.admission.in_flight_bytes > 0, "the journal still holds the body"
    journal.gate.set()


async def test_an_overloaded_receiver_asks_the_sender_to_come_back_in_one_second(
    start: Start, journal: MemoryJournal, way: Way
) -> None:
    receiver = await start(
        limits={"request_bytes_max": 3 << 20, "in_flight_bytes_max": 3 << 20, "waiting_bytes_max": 0}
    )
    slot = await receiver.admission.reserve(3 << 20)

    reply = await ask(receiver, way, traces())
    slot.release()

    assert reply.code == code(way, "UNAVAILABLE", 503)
    assert reply.hints_s == (1.0, 1.0)
    assert (await ask(receiver, way, traces())).ok


async def test_without_a_token_nobody_gets_in(start: Start, journal: MemoryJournal, way: Way) -> None:
    receiver = await start(tokens=[{"tenant": "team-a", "sha256": hashlib.sha256(b"secret").hexdigest()}])

    refused = await ask(receiver, way, traces())
    wrong = await ask(receiver, way, traces(), token="secret2")
    accepted = await ask(receiver, way, traces(), token="secret")

    assert [refused.code, wrong.code] == [code(way, "UNAUTHENTICATED", 401)] * 2
    assert not refused.retryable
    assert accepted.ok
    assert [frame.tenant for frame in journal.frames] == ["team-a"]


async def test_every_reply_is_in_the_content_type_of_its_request(
    receiver: Receiver, journal: MemoryJournal, way: Way
) -> None:
    expected = {"grpc": "", "http-protobuf": "application/x-protobuf", "http-json": "application/json"}[way]

    good = await ask(receiver, way, traces())
    bad = await ask(receiver, way, b"\xff")
    journal.error = OverloadedError("full")
    full = await ask(receiver, way, traces())

    assert [good.content_type, bad.content_type, full.content_type] == [expected] * 3


async def test_repaired_strings_are_a_warning_not_a_reject(
    receiver: Receiver, journal: MemoryJournal, way: Way
) -> None:
    request = (otlp_json if way == "http-json" else protobuf)(traces(1, text="broken"))

    reply = await ask(receiver, way, request.replace(b"broken", b"\xff\xferok\xff"))

    assert (reply.ok, reply.rejected, reply.has_partial_success) == (True, 0, True)
    assert reply.warning == "bad UTF-8 bytes are stored as U+FFFD, strings with any: 1"
    assert len(journal.frames) == 1


async def test_an_oversized_value_is_cut_and_named_by_key_size_and_hash_but_not_shown(
    start: Start, journal: MemoryJournal, way: Way
) -> None:
    receiver = await start(limits={"span_bytes_max": 20_000})
    text = "secret prompt " * 5_000

    reply = await ask(receiver, way, traces(1, text=text))

    assert (reply.ok, reply.rejected) == (True, 0)
    [frame] = journal.frames
    span = ExportTraceServiceRequest.FromString(frame.body).resource_spans[0].scope_spans[0].spans[0]
    value = span.attributes[0].value.string_value
    assert len(frame.body) < 25_000
    assert value.startswith("secret prompt secret prompt ")
    assert f"[cut by spanwise: {len(text)} bytes, xxh3 " in value
    assert f"span 0: gen_ai.input.messages, {len(text)} bytes, xxh3 " in reply.warning
    assert "limits.span_bytes_max" in reply.warning
    assert "secret" not in reply.warning


async def test_no_answer_repeats_what_was_sent(receiver: Receiver, way: Way) -> None:
    canary = "canary-7f3a"
    good = (otlp_json if way == "http-json" else protobuf)(traces(0, bad=3, text=canary))

    for body in (good, good[:-3], good + b"\xff" + canary.encode()):
        reply = await ask(receiver, way, body)
        assert canary not in reply.message + reply.warning
