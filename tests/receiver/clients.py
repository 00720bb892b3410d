"""One way to ask over gRPC, HTTP protobuf and HTTP JSON, and one form of answer, so that a test is written once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import grpc
import grpc.aio
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from receiver import Receiver
from tests.receiver.requests import otlp_json, protobuf

Way = Literal["grpc", "http-protobuf", "http-json"]
WAYS: tuple[Way, ...] = ("grpc", "http-protobuf", "http-json")

_METHOD = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_RESPONSE: dict[str, Any] = {
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}
_REJECTED = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}
_HTTP_RETRYABLE = {429, 502, 503, 504}
_GRPC_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


@dataclass
class Reply:
    """`code` is the gRPC status name or the HTTP status."""

    code: str | int
    retryable: bool = False
    hints_s: tuple[float, ...] = ()
    """Every retry hint found: both gRPC trailers, or the HTTP header and the status details."""
    message: str = ""
    bad_request: bool = False
    rejected: int = 0
    warning: str = ""
    has_partial_success: bool = False
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.code in {"OK", 200}


async def ask(
    receiver: Receiver, way: Way, request: Any, *, service: str = "traces", zipped: bool = False, token: str = ""
) -> Reply:
    """Send a request message, or raw bytes as they are."""
    if way == "grpc":
        body = request if isinstance(request, bytes) else protobuf(request)
        return await ask_grpc(receiver, body, service=service, zipped=zipped, token=token)
    json = way == "http-json"
    body = request if isinstance(request, bytes) else (otlp_json if json else protobuf)(request)
    headers = {"Content-Type": "application/json" if json else "application/x-protobuf"}
    if zipped:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return await ask_http(receiver, body, service=service, headers=headers)


async def ask_grpc(
    receiver: Receiver,
    body: bytes,
    *,
    service: str = "traces",
    zipped: bool = False,
    token: str = "",
    timeout_s: float = 20,
) -> Reply:
    options = [("grpc.use_local_subchannel_pool", 1)]
    compression = grpc.Compression.Gzip if zipped else grpc.Compression.NoCompression
    async with grpc.aio.insecure_channel(str(receiver.grpc_address), options=options) as channel:
        try:
            export: Any = channel.unary_unary(_METHOD[service])
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            answer = await export(body, compression=compression, metadata=metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return refused_grpc(error)
    return _accepted("OK", service, _RESPONSE[service].FromString(answer))


def refused_grpc(error: grpc.aio.AioRpcError) -> Reply:
    reply = Reply(error.code().name, error.code() in _GRPC_RETRYABLE, message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            reply.hints_s += (_seconds(error_details_pb2.RetryInfo.FromString(value)),)
        elif key == "grpc-status-details-bin":
            _read_status(reply, status_pb2.Status.FromString(value))
    return reply


async def ask_http(
    receiver: Receiver,
    body: bytes,
    *,
    service: str = "traces",
    headers: dict[str, str],
    method: str = "POST",
    path: str = "",
) -> Reply:
    async with aiohttp.ClientSession() as session:
        url = f"http://{receiver.http_address}{path or '/v1/' + service}"
        async with session.request(
            method, url, data=io.BytesIO(body) if len(body) > 1 << 20 else body, headers=headers
        ) as response:
            content = await response.read()
            return _http_reply(service, response.status, dict(response.headers), content)


def _http_reply(service: str, status: int, headers: dict[str, str], content: bytes) -> Reply:
    content_type = headers.get("Content-Type", "")
    is_json = content_type == "application/json"
    if status == 200:
        answer = _RESPONSE[service]()
        json_format.Parse(content, answer) if is_json else answer.ParseFromString(content)
        reply = _accepted(200, service, answer)
    else:
        reply = Reply(status, status in _HTTP_RETRYABLE)
        if "Retry-After" in headers:
            reply.hints_s += (float(headers["Retry-After"]),)
        details = status_pb2.Status()
        json_format.Parse(content, details) if is_json else details.ParseFromString(content)
        _read_status(reply, details)
    reply.content_type, reply.headers = content_type, headers
    return reply


def _accepted(code: str | int, service: str, answer: Any) -> Reply:
    partial = answer.partial_success
    return Reply(
        code,
        rejected=getattr(partial, _REJECTED[service]),
        warning=partial.error_message,
        has_partial_success=answer.HasField("partial_success"),
    )


def _read_status(reply: Reply, status: status_pb2.Status) -> None:
    reply.message = status.message
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            reply.hints_s += (_seconds(info),)
        reply.bad_request |= detail.Is(error_details_pb2.BadRequest.DESCRIPTOR)


def _seconds(info: error_details_pb2.RetryInfo) -> float:
    return float(info.retry_delay.ToNanoseconds() / 1e9)


class RawHttp:
    """A socket that sends exactly what it is told, for clients no library would let us be."""

    def __init__(self, receiver: Receiver) -> None:
        assert receiver.http_address is not None
        self._address = receiver.http_address

    async def __aenter__(self) -> RawHttp:
        self.reader, self.writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, *, length: int, path: str = "/v1/traces", **headers: str) -> None:
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: x",
            f"Content-Length: {length}",
            "Content-Type: application/x-protobuf",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def reply(self, service: str = "traces") -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        content = await self.reader.readexactly(int(headers.get("Content-Length", 0)))
        return _http_reply(service, int(head[0].split()[1]), headers, content)

    async def closed(self) -> bytes:
        """What came before the server closed the connection."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""
