"""Export requests, valid and not."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")


def traces(spans: int = 1, *, bad: int = 0, text: str = "", attributes: int = 0) -> ExportTraceServiceRequest:
    """A request of `spans` good spans and `bad` ones with a trace id of 15 bytes."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for index in range(spans + bad):
        span = scope.spans.add(
            trace_id=TRACE_ID if index < spans else TRACE_ID[:15],
            span_id=(index + 1).to_bytes(8, "big"),
            name="chat",
            start_time_unix_nano=1_700_000_000_000_000_000,
            end_time_unix_nano=1_700_000_001_000_000_000,
        )
        if text:
            span.attributes.add(key="gen_ai.input.messages").value.string_value = text
        for number in range(attributes):
            span.attributes.add(key=f"key{number}").value.int_value = number
    return request


def logs(records: int = 1) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for _ in range(records):
        scope.log_records.add(time_unix_nano=1_700_000_000_000_000_000).body.string_value = "hello"
    return request


def metrics(points: int = 1) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens", unit="1")
    for number in range(points):
        metric.sum.data_points.add(as_int=number, time_unix_nano=1_700_000_000_000_000_000)
    return request


BUILD: dict[str, Callable[[int], Any]] = {"traces": traces, "logs": logs, "metrics": metrics}


def protobuf(request: Any) -> bytes:
    return bytes(request.SerializeToString())


def otlp_json(request: Any) -> bytes:
    """OTLP/JSON differs from proto3 JSON in its ids: hex, not base64."""
    return json.dumps(_hex_ids(json_format.MessageToDict(request, use_integers_for_enums=True))).encode()


def _hex_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_hex_ids(item) for item in value]
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex() if key in {"traceId", "spanId", "parentSpanId"} else _hex_ids(item)
            for key, item in value.items()
        }
    return value


def gzip_of_zeros(size: int) -> bytes:
    """A gzip body that inflates to `size` zero bytes (whole MiB), made without compressing them all.

    After a full flush DEFLATE starts afresh, so the block of one MiB can be repeated.
    """
    deflate = zlib.compressobj(9, wbits=-15)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    blocks = block * (size >> 20) + deflate.flush(zlib.Z_FINISH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + blocks + struct.pack("<II", 0, size & 0xFFFFFFFF)
