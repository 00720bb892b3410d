"""What a calm run would have come to: the findings of the same requests, and the sums of the spans that are there."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import SecretStr

from bench.payloads import Payload
from processors.normalise import plan_json
from spanwise._native import Decoder
from spanwise.query import StoreQueries
from spanwise.store import Store, StoreConfig, open_store
from tests.build import START
from tests.detector.conftest import World
from tests.running import RunningServer

SERVICE = "looping"
PAST_NS = 300 * 10**9
"""Spans are sent as if they were so old: minutes that are over are counted at once."""
QUICK_ROLLUPS = {
    "SPANWISE_ROLLUPS__CLOSE_S": "0",
    "SPANWISE_ROLLUPS__LATE_S": "1",
    "SPANWISE_ROLLUPS__LATE_MAX_S": "1",
}
_FINDINGS = (
    f"SELECT * EXCEPT (detected_at, version, received_at) FROM findings FINAL WHERE service = '{SERVICE}' "
    "ORDER BY finding_id"
)
_COUNTED = (
    "SELECT toUnixTimestamp(minute) AS at, toInt64(sum(spans)) AS n, toInt64(sum(input_tokens)) AS input, "
    "toInt64(sum(output_tokens)) AS output, toString(sum(cost_usd)) AS cost "
    "FROM rollup_1m FINAL GROUP BY at HAVING n > 0 ORDER BY at"
)
_RECOUNTED = (
    "SELECT toUnixTimestamp(toStartOfMinute(start_time)) AS at, toInt64(count()) AS n, "
    "toInt64(sumIf(ifNull(input_tokens, 0), usage_scope = 'own')) AS input, "
    "toInt64(sumIf(ifNull(output_tokens, 0), usage_scope = 'own')) AS output, "
    "toString(sumIf(ifNull(cost_usd, toDecimal64(0, 9)), usage_scope = 'own')) AS cost "
    "FROM spans FINAL WHERE kind != '' OR operation != '' OR usage_scope = 'own' GROUP BY at ORDER BY at"
)


def looping(rng: random.Random) -> list[Payload]:
    """A trace with a tool that is called in vain again and again, in three requests that come in any order."""
    trace_id = rng.randbytes(16)
    start = time.time_ns() - PAST_NS
    spans = [("invoke_agent", 0), *(("chat" if at % 3 == 0 else "execute_tool", at) for at in range(1, 13))]
    rng.shuffle(spans)
    parts = []
    for chosen in (spans[:4], spans[4:9], spans[9:]):
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = SERVICE
        scope = group.scope_spans.add()
        for operation, at in chosen:
            span = scope.spans.add(trace_id=trace_id, span_id=(at + 1).to_bytes(8, "big"), name=operation)
            span.parent_span_id = (1).to_bytes(8, "big") if at else b""
            span.start_time_unix_nano = start + at * 10**9
            span.end_time_unix_nano = span.start_time_unix_nano + (10**8 if at else 20 * 10**9)
            for key, value in _ATTRIBUTES[operation].items():
                attribute = span.attributes.add(key=key).value
                if isinstance(value, int):
                    attribute.int_value = value
                else:
                    attribute.string_value = value
        ids = tuple(span.trace_id + span.span_id for span in scope.spans)
        parts.append(Payload(request.SerializeToString(), len(ids), ids))
    return parts


_ATTRIBUTES: dict[str, dict[str, str | int]] = {
    "invoke_agent": {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "buyer"},
    "chat": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
    },
    "execute_tool": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.arguments": json.dumps({"query": "cats"}),
        "gen_ai.tool.call.result": "Error: quota exceeded",
    },
}


def calm_findings(directory: Path, bodies: Iterable[bytes]) -> list[dict[str, Any]]:
    """Findings of these requests in a store of their own, where nothing fails."""
    config = StoreConfig(dsn=SecretStr(f"chdb://{directory}"))
    with closing(open_store(Store(config))) as store:
        world = World(store)
        world.now_s = (time.time_ns() - START) / 1e9
        decoder = Decoder(plan_json())
        frames = [("default", world.wall_ns(), "traces", body) for body in bodies]
        for at in range(0, len(frames), 1_000):
            decoded = decoder.decode(frames[at : at + 1_000])
            world.take(decoded.spans)
        world.settle()
        answer = b"".join(StoreQueries(store).sql(_FINDINGS, "jsonl", {}))
        return [json.loads(line) for line in answer.splitlines()]


def assert_findings_are(server: RunningServer, expected: list[dict[str, Any]], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (found := server.sql(_FINDINGS)) != expected:
        if time.monotonic() > deadline:
            differ = [row for row in found if row not in expected], [row for row in expected if row not in found]
            pytest.fail(f"{len(found)} findings, {len(expected)} in a calm run; only in one: {differ}")
        time.sleep(0.5)


def assert_rollups_are_a_recount(server: RunningServer, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (counted := server.sql(_COUNTED)) != (recounted := server.sql(_RECOUNTED)):
        if time.monotonic() > deadline:
            pytest.fail(f"rollups are {counted}, a recount gives {recounted}")
        time.sleep(0.5)
    assert recounted
