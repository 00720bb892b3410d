from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from spanwise.query.ask import TraceFilter
from spanwise.stage import OverloadedError
from spanwise.store import QueryError, StoreError
from spanwise.web import WebConfig
from tests.web.serving import Reads, serving


async def get(url: str, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.json()


async def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes, Any]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.read(), response.headers


# Health


async def test_healthz_answers_while_the_process_lives() -> None:
    async with serving() as server:
        server.not_ready["store"] = "does not answer"

        assert await get(f"{server.url}/healthz") == (200, {"status": "ok"})


async def test_readyz_says_which_part_is_not_ready_and_why() -> None:
    async with serving() as server:
        assert await get(f"{server.url}/readyz") == (200, {"status": "ready"})
        server.not_ready["journal"] = "the disk has less than 1 GiB free"
        assert await get(f"{server.url}/readyz") == (
            503,
            {"status": "not ready", "reasons": {"journal": "the disk has less than 1 GiB free"}},
        )


async def test_metrics_are_in_the_prometheus_format() -> None:
    async with serving() as server, aiohttp.ClientSession() as session:
        server.telemetry.accepted("traces", "grpc", items=5, body_bytes=10, seconds=0.01)
        async with session.get(f"{server.url}/metrics") as response:
            text = await response.text()
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = families["spanwise_receiver_accepted_items"].samples
    assert sample.value == 5


# SQL


async def test_sql_as_text_is_streamed_back_in_the_format_asked_for() -> None:
    async with serving(Reads(lambda: iter([b'{"n":1}\n', b'{"n":2}\n']))) as server:
        status, body, headers = await post(f"{server.url}/api/v1/sql?format=jsonl&param_x=1", b"SELECT n")

        assert (status, body) == (200, b'{"n":1}\n{"n":2}\n')
        assert headers["Content-Type"] == "application/x-ndjson"
        assert server.reads.asked == [("SELECT n", "jsonl", {"x": "1"})]


async def test_sql_as_json_carries_its_format_and_parameters() -> None:
    async with serving() as server:
        body = b'{"query": "SELECT {x:Int8}", "format": "csv", "parameters": {"x": 1}}'
        status, _, _ = await post(f"{server.url}/api/v1/sql", body, **{"Content-Type": "application/json"})

        assert status == 200
        assert server.reads.asked == [("SELECT {x:Int8}", "csv", {"x": "1"})]


async def test_a_long_answer_is_streamed_and_not_gathered() -> None:
    pieces = 400
    reads = Reads(lambda: (bytes(100_000) for _ in range(pieces)))
    async with (
        serving(reads) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/api/v1/sql", data=b"SELECT 1") as response,
    ):
        got = sum([len(piece) async for piece in response.content.iter_any()])

    assert response.headers["Transfer-Encoding"] == "chunked"
    assert got == pieces * 100_000


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status", "message"),
    [
        ("/api/v1/sql", b"", "text/plain", 400, "the query is empty"),
        ("/api/v1/sql", b" \n", "text/plain", 400, "the query is empty"),
        ("/api/v1/sql", b"\xff", "text/plain", 400, "the request is not a query"),
        ("/api/v1/sql", b"[]", "application/json", 400, "the request is not a query"),
        ("/api/v1/sql", b"{}", "application/json", 400, "the request is not a query"),
        ("/api/v1/sql", b'{"query": 1}', "application/json", 400, "the query is empty"),
        ("/api/v1/sql", b'{"query": "SELECT 1", "parameters": 3}', "application/json", 400, "not a query"),
        ("/api/v1/sql?format=xml", b"SELECT 1", "text/plain", 400, "there is no such format"),
        ("/api/v1/sql", b"-" * 2000, "text/plain", 413, "the request is too long"),
        ("/api/v1/traces", b"", "text/plain", 405, "method not allowed"),
        ("/nothing", b"", "text/plain", 404, "not found"),
    ],
)
async def test_a_wrong_request_is_answered_with_a_message_and_a_hint(
    path: str, body: bytes, content_type: str, status: int, message: str
) -> None:
    async with (
        serving(sql_bytes_max=1024) as server,
        aiohttp.ClientSession() as session,
        session.post(server.url + path, data=body, headers={"Content-Type": content_type}) as response,
    ):
        error = (await response.json())["error"]

    assert response.status == status
    assert message in error["message"]
    assert error["hint"]


async def test_a_failing_query_is_a_400_with_what_the_store_says() -> None:
    def fail() -> Iterator[bytes]:
        raise QueryError("unknown column `costt`")
        yield b""

    async with serving(Reads(fail)) as server:
        status, body, _ = await post(f"{server.url}/api/v1/sql", b"SELECT costt FROM spans")

    assert status == 400
    assert json.loads(body)["error"] == {
        "message": "unknown column `costt`",
        "hint": "`spanwise schema` lists the tables and their columns",
    }


@pytest.mark.parametrize("error", [OverloadedError("busy"), StoreError("cannot read")])
async def test_a_store_that_cannot_answer_now_is_a_503_that_asks_to_come_back(error: Exception) -> None:
    def fail() -> Iterator[bytes]:
        raise error
        yield b""

    async with serving(Reads(fail)) as server:
        status, _, headers = await post(f"{server.url}/api/v1/sql", b"SELECT 1")

    assert (status, headers["Retry-After"]) == (503, "1")


async def test_a_query_that_fails_half_way_does_not_look_complete() -> None:
    def fail() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise QueryError("memory limit")

    async with serving(Reads(fail)) as server:
        with pytest.raises(aiohttp.ClientError):
            await post(f"{server.url}/api/v1/sql", b"SELECT 1")


async def test_an_unexpected_failure_tells_nothing_of_its_message() -> None:
    def fail() -> Iterator[bytes]:
        raise RuntimeError("row with sk-canary")
        yield b""

    async with serving(Reads(fail)) as server:
        status, body, _ = await post(f"{server.url}/api/v1/sql", b"SELECT 1")

    assert status == 500
    assert b"canary" not in body


async def test_reads_beyond_the_limit_wait_and_beyond_the_queue_are_told_to_come_back() -> None:
    started, release = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        started.set()
        release.wait(10)
        yield b"done"

    async with serving(Reads(slow), reads_concurrent=1, reads_queue=1) as server:
        asked = [asyncio.create_task(post(f"{server.url}/api/v1/sql", b"SELECT 1")) for _ in range(2)]
        await asyncio.to_thread(started.wait, 10)
        await asyncio.sleep(0.05)  # the second one is in the queue by now

        status, _, headers = await post(f"{server.url}/api/v1/sql", b"SELECT 1")
        release.set()

        assert (status, headers["Retry-After"]) == (503, "1")
        assert [(await one)[:2] for one in asked] == [(200, b"done"), (200, b"done")]


async def test_a_query_ends_when_its_asker_leaves_and_frees_its_place() -> None:
    asked = threading.Event()

    def endless() -> Iterator[bytes]:
        while True:
            asked.set()
            yield b"x" * 65_536

    reads = Reads(endless)
    async with serving(reads, reads_concurrent=1, reads_queue=0) as server:
        async with aiohttp.ClientSession() as session:
            response = await session.post(f"{server.url}/api/v1/sql", data=b"SELECT 1")
            await response.content.readany()
            response.close()

        assert await asyncio.to_thread(reads.closed.wait, 10)
        reads.answer = lambda: iter([b"free"])
        for _ in range(100):
            status, body, _ = await post(f"{server.url}/api/v1/sql", b"SELECT 1")
            if status == 200:
                break
            await asyncio.sleep(0.02)
        assert body == b"free"


# Traces


async def test_traces_are_filtered_by_query_parameters() -> None:
    async with serving() as server:
        await get(f"{server.url}/api/v1/traces?limit=5&service=shop&errors=1&cost_min_usd=0.10&since_s=100")

        assert server.reads.asked == [
            TraceFilter(limit=5, since_s=100, service="shop", errors=True, cost_min_usd=Decimal("0.10"))
        ]


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "since_s=nan", "cost_min_usd=abc", "sevice=a"])
async def test_a_wrong_filter_is_refused(query: str) -> None:
    async with serving() as server:
        status, body = await get(f"{server.url}/api/v1/traces?{query}")

        assert status == 400
        assert body["error"]["hint"]
        assert server.reads.asked == []


async def test_money_is_an_exact_json_number() -> None:
    async with (
        serving(Reads(traces_found=[{"cost_usd": Decimal("0.100000001")}])) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/api/v1/traces") as response,
    ):
        assert await response.text() == '{"traces":[{"cost_usd":0.100000001}]}\n'


async def test_a_trace_is_found_by_the_beginning_of_its_id() -> None:
    async with serving(Reads(traces_found=[{"trace_id": "abcd" * 8}, {"trace_id": "ab00" * 8}])) as server:
        status, body = await get(f"{server.url}/api/v1/traces/ABCD")

        assert (status, body["trace"]["trace_id"]) == (200, "abcd" * 8)
        assert (await get(f"{server.url}/api/v1/traces/ffff"))[0] == 404
        assert (await get(f"{server.url}/api/v1/traces/ab"))[0] == 409
        assert (await get(f"{server.url}/api/v1/traces/xyz"))[0] == 400
        assert (await get(f"{server.url}/api/v1/traces/{'a' * 33}"))[0] == 400


async def test_summary_and_status_answer() -> None:
    async with serving() as server:
        assert await get(f"{server.url}/api/v1/summary") == (200, {"spans": 7})
        assert (await get(f"{server.url}/api/v1/status"))[1]["http"] == "127.0.0.1:4318"


# Who may ask


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::2]:1"])
async def test_a_name_that_is_rebound_to_this_machine_gets_nothing(host: str) -> None:
    async with serving() as server:
        status, body = await get(f"{server.url}/api/v1/summary", Host=host)

        assert status == 403
        assert body["error"]["message"] == "this address answers to localhost only"


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:9", "[::1]:8080"])
async def test_every_name_of_this_machine_is_answered(host: str) -> None:
    async with serving() as server:
        assert (await get(f"{server.url}/api/v1/summary", Host=host))[0] == 200


async def test_a_page_of_another_origin_may_not_run_queries() -> None:
    async with serving() as server:
        status, _, _ = await post(f"{server.url}/api/v1/sql", b"SELECT 1", Origin="https://evil.example")
        own, _, _ = await post(f"{server.url}/api/v1/sql", b"SELECT 1", Origin=server.url)

        assert (status, own) == (403, 200)
        assert len(server.reads.asked) == 1


async def test_with_tokens_only_their_holders_read_and_health_stays_open() -> None:
    tokens = [{"name": "grafana", "sha256": hashlib.sha256(b"s3cret").hexdigest()}]
    async with serving(tokens=tokens) as server:
        assert (await get(f"{server.url}/api/v1/summary"))[0] == 401
        assert (await get(f"{server.url}/metrics"))[0] == 401
        assert (await get(f"{server.url}/api/v1/summary", Authorization="Bearer wrong"))[0] == 401
        assert (await get(f"{server.url}/api/v1/summary", Authorization="Basic s3cret"))[0] == 401
        assert (await get(f"{server.url}/api/v1/summary", Authorization="Bearer s3cret"))[0] == 200
        assert (await get(f"{server.url}/healthz"))[0] == 200
        assert (await get(f"{server.url}/readyz"))[0] == 200


BOUND = [{"name": "acme", "tenant": "acme", "sha256": hashlib.sha256(b"bound").hexdigest()}]


@pytest.mark.parametrize("path", ["/traces", "/traces/abcd", "/findings", "/summary"])
async def test_a_token_bound_to_a_tenant_reads_within_it(path: str) -> None:
    async with serving(Reads(traces_found=[{"trace_id": "abcd" * 8}]), tokens=BOUND) as server:
        status, _ = await get(f"{server.url}/api/v1{path}", Authorization="Bearer bound")

        assert (status, server.reads.tenants) == (200, ["acme"])


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status", "/api/v1/../v1/status", "/%61pi/v1/status"])
async def test_a_token_bound_to_a_tenant_sees_nothing_of_the_whole_program(path: str) -> None:
    async with serving(tokens=BOUND) as server:
        status, body = await get(f"{server.url}{path}", Authorization="Bearer bound")

        assert status == 403
        assert "bound to one" in body["error"]["message"]


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:1", "example.com:80"])
def test_listening_beyond_this_machine_needs_tokens_or_insecure(address: str) -> None:
    with pytest.raises(ValidationError, match="can be reached from other machines"):
        WebConfig(address=address)

    assert WebConfig(address=address, insecure=True).insecure


# The page


async def test_the_page_says_where_to_send_and_runs_nothing() -> None:
    async with serving() as server, aiohttp.ClientSession() as session, session.get(server.url) as response:
        page = await response.text()

    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318" in page
    assert "<script" not in page
    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_the_page_escapes_what_it_shows() -> None:
    async with serving() as server, aiohttp.ClientSession() as session, session.get(server.url) as response:
        page = await response.text()

    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page


async def test_port_0_is_answered_with_the_real_port() -> None:
    async with serving() as server:
        assert not server.url.endswith(":0")
