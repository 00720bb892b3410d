"""HTTP as senders, proxies, browsers and attackers speak it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib

import pytest

from receiver import Receiver
from tests.receiver.clients import RawHttp, Way, ask, ask_http
from tests.receiver.conftest import Start
from tests.receiver.doubles import Counted, MemoryJournal, until
from tests.receiver.requests import gzip_of_zeros, otlp_json, protobuf, traces

PROTOBUF = {"Content-Type": "application/x-protobuf"}
MIB = 1 << 20


async def test_an_unknown_path_is_404_in_the_content_type_of_the_request(receiver: Receiver) -> None:
    as_protobuf = await ask_http(receiver, b"", headers=PROTOBUF, path="/v1/profiles")
    as_json = await ask_http(receiver, b"{}", headers={"Content-Type": "application/json"}, path="/")

    assert [as_protobuf.code, as_json.code] == [404, 404]
    assert as_protobuf.message == as_json.message == "send to one of /v1/traces, /v1/logs, /v1/metrics"
    assert [as_protobuf.content_type, as_json.content_type] == ["application/x-protobuf", "application/json"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_405_and_say_which_is_right(receiver: Receiver, method: str) -> None:
    reply = await ask_http(receiver, b"", headers=PROTOBUF, method=method)

    assert (reply.code, reply.headers["Allow"], reply.message) == (405, "POST", "use POST")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/protobuf", ""])
async def test_other_content_types_are_415(receiver: Receiver, content_type: str) -> None:
    reply = await ask_http(receiver, protobuf(traces()), headers={"Content-Type": content_type})

    assert reply.code == 415
    assert reply.headers["Accept-Post"] == "application/x-protobuf, application/json"


@pytest.mark.parametrize("encoding", ["deflate", "zstd", "br", "gzip, gzip", "snappy"])
async def test_other_encodings_are_415(receiver: Receiver, encoding: str) -> None:
    reply = await ask_http(receiver, b"x", headers={**PROTOBUF, "Content-Encoding": encoding})

    assert (reply.code, reply.headers["Accept-Encoding"]) == (415, "gzip, identity")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
async def test_a_charset_parameter_is_tolerated(receiver: Receiver, content_type: str) -> None:
    assert (await ask_http(receiver, otlp_json(traces()), headers={"Content-Type": content_type})).ok


async def test_an_empty_protobuf_body_is_an_empty_request_and_an_empty_json_body_is_not_json(
    receiver: Receiver,
) -> None:
    assert (await ask_http(receiver, b"", headers=PROTOBUF)).ok
    assert (await ask_http(receiver, b"", headers={"Content-Type": "application/json"})).code == 400


async def test_a_gzip_body_of_several_members_is_one_body(receiver: Receiver, journal: MemoryJournal) -> None:
    body = protobuf(traces(100, text="x" * 5000))
    members = gzip.compress(body[:1000]) + gzip.compress(b"") + gzip.compress(body[1000:])

    assert (await ask_http(receiver, members, headers={**PROTOBUF, "Content-Encoding": "gzip"})).ok
    assert [frame.body for frame in journal.frames] == [body]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda body: body[:-9], "gzip body ends too early"),
        (lambda body: body[:-8] + b"\0" * 8, "gzip body is damaged"),
        (lambda body: body + b"trailing", "gzip body is damaged"),
        (lambda _: b"plain", "gzip body is damaged"),
        (lambda _: gzip.compress(b"") * 1001, "gzip body has more than 1000 members"),
    ],
    ids=["truncated", "wrong-checksum", "garbage-after", "not-gzip", "member-flood"],
)
async def test_a_damaged_gzip_body_is_bad_data(receiver: Receiver, damage: object, sentence: str) -> None:
    assert callable(damage)
    body = damage(gzip.compress(protobuf(traces())))

    reply = await ask_http(receiver, body, headers={**PROTOBUF, "Content-Encoding": "gzip"})

    assert (reply.code, reply.message, reply.bad_request) == (400, sentence, True)


async def test_chunked_bodies_are_taken(receiver: Receiver, journal: MemoryJournal) -> None:
    body = protobuf(traces(10))
    async with RawHttp(receiver) as sender:
        await sender.send(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for start in range(0, len(body), 100):
            piece = body[start : start + 100]
            await sender.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await sender.send(b"0\r\n\r\n")

        assert (await sender.reply()).ok
    assert [frame.body for frame in journal.frames] == [body]


async def test_a_connection_is_kept_for_the_next_request(receiver: Receiver, journal: MemoryJournal) -> None:
    body = protobuf(traces())
    async with RawHttp(receiver) as sender:
        for _ in range(3):
            await sender.head(length=len(body))
            await sender.send(body)
            assert (await sender.reply()).ok
    assert len(journal.frames) == 3


async def test_a_sender_that_asks_first_is_told_to_go_on_only_when_it_may(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(tokens=[{"tenant": "a", "sha256": hashlib.sha256(b"secret").hexdigest()}])
    body = protobuf(traces())

    async with RawHttp(receiver) as sender:
        await sender.head(length=len(body), Expect="100-continue")
        assert (await sender.reply()).code == 401

    async with RawHttp(receiver) as sender:
        await sender.head(length=len(body), Expect="100-continue", Authorization="Bearer secret")
        assert await sender.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await sender.send(body)
        assert (await sender.reply()).ok


async def test_401_comes_before_the_body_and_costs_no_budget(start: Start, counted: Counted) -> None:
    receiver = await start(tokens=[{"tenant": "a", "sha256": hashlib.sha256(b"secret").hexdigest()}])
    async with RawHttp(receiver) as sender:
        await sender.head(length=64 * MIB)
        await sender.send(b"x" * 100)

        reply = await sender.reply()

        assert (reply.code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert counted.inflight_most == 0
        assert await sender.closed() == b""


async def test_413_comes_before_the_body_where_its_length_is_declared(receiver: Receiver, counted: Counted) -> None:
    async with RawHttp(receiver) as sender:
        await sender.head(length=64 * MIB + 1)

        assert (await sender.reply()).code == 413
    assert counted.inflight_most == 0


async def test_413_ends_an_undeclared_body_at_the_limit(start: Start, counted: Counted) -> None:
    receiver = await start(limits={"request_bytes_max": MIB})
    async with RawHttp(receiver) as sender:
        await sender.send(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(17):
            await sender.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        assert (await sender.reply()).code == 413
    assert counted.inflight_most <= MIB


@pytest.mark.parametrize("sent", [b"", b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-Never-"])
async def test_a_connection_without_a_whole_header_is_closed(start: Start, counted: Counted, sent: bytes) -> None:
    receiver = await start(limits={"header_timeout_s": 0.1})
    async with RawHttp(receiver) as sender:
        await sender.send(sent)

        assert await sender.closed() == b""
    assert counted.refusals == {("none", "http", "slow_header"): 1}


async def test_half_a_header_on_a_kept_connection_is_closed_too(start: Start) -> None:
    receiver = await start(limits={"header_timeout_s": 0.1})
    body = protobuf(traces())
    async with RawHttp(receiver) as sender:
        await sender.head(length=len(body))
        await sender.send(body)
        assert (await sender.reply()).ok
        await sender.send(b"POST /v1/tra")

        assert await sender.closed() == b""


async def test_a_slow_ack_is_not_taken_for_a_slow_header(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(limits={"header_timeout_s": 0.05})
    journal.gate = asyncio.Event()
    body = protobuf(traces())
    async with RawHttp(receiver) as sender:
        await sender.head(length=len(body))
        await sender.send(body)
        await asyncio.sleep(0.2)
        journal.gate.set()

        assert (await sender.reply()).ok


async def test_a_body_that_never_ends_is_refused_and_its_bytes_are_free_again(start: Start, counted: Counted) -> None:
    receiver = await start(limits={"body_timeout_s": 0.1})
    async with RawHttp(receiver) as sender:
        await sender.head(length=1000)
        await sender.send(b"x" * 100)

        reply = await sender.reply()

    assert (reply.code, reply.hints_s) == (503, (1.0, 1.0))
    assert counted.refusals == {("traces", "http", "slow_body"): 1}
    assert receiver.admission.in_flight_bytes == 0


async def test_a_sender_that_leaves_in_the_middle_frees_its_bytes(start: Start, counted: Counted) -> None:
    receiver = await start()
    async with RawHttp(receiver) as sender:
        await sender.head(length=MIB)
        await sender.send(b"x" * 1000)
        await until(lambda: receiver.admission.in_flight_bytes > 0)

    await until(lambda: receiver.admission.in_flight_bytes == 0)
    assert counted.refusals == {("traces", "http", "disconnected"): 1}


async def test_connections_over_the_cap_are_answered_and_closed(start: Start, counted: Counted) -> None:
    receiver = await start(limits={"connections_max": 2})
    async with RawHttp(receiver) as first, RawHttp(receiver), RawHttp(receiver) as third:
        reply = await third.reply()
        assert (reply.code, reply.hints_s) == (503, (1.0, 1.0))
        assert await third.closed() == b""

        body = protobuf(traces())
        await first.head(length=len(body))
        await first.send(body)
        assert (await first.reply()).ok
    assert counted.refusals == {("none", "http", "connections"): 1}


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
    ids=["tls-hello", "http2-preface", "negative-length", "huge-header"],
)
async def test_what_is_not_http_is_answered_with_a_status_and_closed(receiver: Receiver, sent: bytes) -> None:
    async with RawHttp(receiver) as sender:
        await sender.send(sent + b"\r\n\r\n")

        reply = await sender.reply()

        assert (reply.code, reply.message) == (400, "not a valid HTTP request")
        assert await sender.closed() == b""


async def test_pages_of_other_origins_get_no_leave_to_send(start: Start) -> None:
    receiver = await start(cors_origins=["https://app.example.com"])
    ours, theirs = ({"Origin": f"https://{host}.example.com"} for host in ("app", "evil"))

    async def origins(headers: dict[str, str], method: str) -> tuple[str | int, str | None]:
        async with RawHttp(receiver) as sender:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            await sender.send(f"{method} /v1/traces HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 0\r\n\r\n".encode())
            head = (await sender.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            sent = dict(line.split(": ", 1) for line in head[1:] if line)
            return head[0].split()[1], sent.get("Access-Control-Allow-Origin")

    assert await origins(ours, "OPTIONS") == ("204", ours["Origin"])
    assert await origins({**ours, "Content-Type": "application/x-protobuf"}, "POST") == ("200", ours["Origin"])
    assert await origins(theirs, "OPTIONS") == ("405", None)


@pytest.mark.parametrize("way", ["http-protobuf", "http-json"])
async def test_a_request_beside_a_large_inflating_one_is_answered_meanwhile(receiver: Receiver, way: Way) -> None:
    bomb = gzip_of_zeros(1 << 30)
    big = asyncio.create_task(ask_http(receiver, bomb, headers={**PROTOBUF, "Content-Encoding": "gzip"}))

    assert (await ask(receiver, way, traces())).ok
    assert (await big).code == 413


async def test_an_old_connection_is_ended_with_an_answer(start: Start, journal: MemoryJournal) -> None:
    receiver = await start(limits={"connection_age_s": 0.3})
    body = protobuf(traces())
    async with RawHttp(receiver) as sender:
        await sender.head(length=len(body))
        await sender.send(body)
        young = await sender.reply()
        await asyncio.sleep(0.35)
        await sender.head(length=len(body))
        await sender.send(body)
        old = await sender.reply()

        assert [young.code, old.code] == [200, 200]
        assert ("Connection" in young.headers, old.headers["Connection"]) == (False, "close")
        assert await sender.closed() == b""
    assert len(journal.frames) == 2
