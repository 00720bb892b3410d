"""Slow queries do not stand in the way of what is being stored."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.running import RunningServer

EXPORTS = 20
QUERIES = 4
ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    return RunningServer(tmp_path_factory.mktemp("busy") / "data", SPANWISE_CLICKHOUSE__QUERY_TIMEOUT_S="100")


def gauge(server: RunningServer, name: str) -> int:
    (line,) = [line for line in server.metrics() if line.startswith(f"{name} ")]
    return int(float(line.split()[1]))


def export(server: RunningServer, service: str) -> tuple[float, float]:
    """Send spans one request each. Returns the median seconds until one is acknowledged, and until all can be read."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{server.http}/v1/traces")))
    tracer, acknowledged = provider.get_tracer("agents"), []
    begun = time.monotonic()
    for number in range(EXPORTS):
        span = tracer.start_span(f"chat {number}", attributes={"gen_ai.operation.name": "chat"})
        ended = time.monotonic()
        span.end()
        acknowledged.append(time.monotonic() - ended)
    server.wait_for(f"SELECT count() FROM spans FINAL WHERE service = '{service}'", EXPORTS, timeout_s=60)
    readable = time.monotonic() - begun
    provider.shutdown()
    return statistics.median(acknowledged), readable


def test_spans_are_acknowledged_and_readable_while_queries_without_end_take_every_turn(server: RunningServer) -> None:
    with server, contextlib.ExitStack() as asking:
        calm = export(server, "calm")
        for _ in range(QUERIES):
            connection = asking.enter_context(socket.create_connection(("127.0.0.1", server.clickhouse_port)))
            head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(ENDLESS)}\r\n\r\n"
            connection.sendall((head + ENDLESS).encode())
        while gauge(server, "spanwise_clickhouse_queries_running") < QUERIES:
            time.sleep(0.05)

        busy = export(server, "busy")

        # all were stored before any of the queries ended
        assert gauge(server, "spanwise_clickhouse_queries_running") == QUERIES
        assert gauge(server, "spanwise_store_seconds_count") >= 2
        assert not any(line.startswith("spanwise_insert_errors_total{") for line in server.metrics())
        asking.close()
        while gauge(server, "spanwise_clickhouse_queries_running"):
            time.sleep(0.05)
        for name, (acknowledged, readable) in (("calm", calm), (f"beside {QUERIES} queries", busy)):
            print(f"{name}: acknowledged in {acknowledged * 1000:.1f} ms, {EXPORTS} spans readable in {readable:.2f} s")
