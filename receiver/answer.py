"""The one place that says what an outcome looks like on the wire, in gRPC and in HTTP (OTLP 1.11, "Failures").

Whether a sender keeps its data or drops it depends on these codes alone: UNAVAILABLE and 503 are tried again, and carry
the hint of one second because the SDKs give up after ten; everything else is final.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

import grpc
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

Service: TypeAlias = Literal["traces", "logs", "metrics"]
Transport: TypeAlias = Literal["grpc", "http"]

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
RETRY_S: Final = 1
MESSAGE_CHARS_MAX: Final = 1024
"""Replies stay small whatever the request was."""


class _Wire(NamedTuple):
    code: grpc.StatusCode
    rpc_code: int
    http_status: int
    http_headers: dict[str, str]


class Kind(Enum):
    """Why a request is refused, as far as the sender has to know."""

    UNAVAILABLE = _Wire(grpc.StatusCode.UNAVAILABLE, code_pb2.UNAVAILABLE, 503, {"Retry-After": str(RETRY_S)})
    TOO_LARGE = _Wire(grpc.StatusCode.RESOURCE_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED, 413, {})
    INVALID = _Wire(grpc.StatusCode.INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT, 400, {})
    UNAUTHENTICATED = _Wire(
        grpc.StatusCode.UNAUTHENTICATED, code_pb2.UNAUTHENTICATED, 401, {"WWW-Authenticate": "Bearer"}
    )
    NO_SUCH_PATH = _Wire(grpc.StatusCode.UNIMPLEMENTED, code_pb2.UNIMPLEMENTED, 404, {})
    NO_SUCH_METHOD = _Wire(grpc.StatusCode.UNIMPLEMENTED, code_pb2.UNIMPLEMENTED, 405, {"Allow": "POST"})
    MEDIA_TYPE = _Wire(
        grpc.StatusCode.UNIMPLEMENTED, code_pb2.UNIMPLEMENTED, 415, {"Accept-Post": f"{PROTOBUF}, {JSON}"}
    )
    ENCODING = _Wire(grpc.StatusCode.UNIMPLEMENTED, code_pb2.UNIMPLEMENTED, 415, {"Accept-Encoding": "gzip, identity"})


class RefusedError(Exception):
    """The request is not taken. `reason` is a metric label, `message` is for the sender and holds no payload."""

    def __init__(self, kind: Kind, reason: str, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.message = shorten(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is durable, except for `rejected` items. A message without rejects is a warning."""

    items: int = 0
    rejected: int = 0
    message: str = ""


def shorten(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARS_MAX else message[: MESSAGE_CHARS_MAX - 3] + "..."


def _status(refused: RefusedError) -> status_pb2.Status:
    status = status_pb2.Status(code=refused.kind.value.rpc_code, message=refused.message)
    if refused.kind is Kind.UNAVAILABLE:
        status.details.add().Pack(_RETRY_INFO)
    elif refused.kind is Kind.INVALID:
        violation = error_details_pb2.BadRequest.FieldViolation(field=refused.field, description=refused.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


_RETRY_INFO: Final = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S))


class GrpcRefusal(NamedTuple):
    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, bytes], ...]


def grpc_refusal(refused: RefusedError) -> GrpcRefusal:
    """Code, details and trailers. The Python SDK reads the retry hint from the first trailer, the Collector from the
    status details."""
    trailers = [("grpc-status-details-bin", _status(refused).SerializeToString())]
    if refused.kind is Kind.UNAVAILABLE:
        trailers.insert(0, ("google.rpc.retryinfo-bin", _RETRY_INFO.SerializeToString()))
    return GrpcRefusal(refused.kind.value.code, refused.message, tuple(trailers))


class HttpAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def http_refusal(refused: RefusedError, *, json: bool) -> HttpAnswer:
    """A `google.rpc.Status` in the content type of the request; protobuf where the request had neither."""
    wire, status = refused.kind.value, _status(refused)
    body = _json(status) if json else status.SerializeToString()
    return HttpAnswer(wire.http_status, {"Content-Type": JSON if json else PROTOBUF, **wire.http_headers}, body)


def http_accepted(service: Service, accepted: Accepted, *, json: bool) -> HttpAnswer:
    return HttpAnswer(200, {"Content-Type": JSON if json else PROTOBUF}, response(service, accepted, json=json))


def response(service: Service, accepted: Accepted, *, json: bool = False) -> bytes:
    """The export response. `partial_success` is left out where everything went well, as the protocol asks."""
    if not accepted.rejected and not accepted.message:
        return b"{}" if json else b""
    count, text = accepted.rejected, shorten(accepted.message)
    message: (
        trace_service_pb2.ExportTraceServiceResponse
        | logs_service_pb2.ExportLogsServiceResponse
        | metrics_service_pb2.ExportMetricsServiceResponse
    )
    if service == "traces":
        message = trace_service_pb2.ExportTraceServiceResponse()
        message.partial_success.rejected_spans = count
    elif service == "logs":
        message = logs_service_pb2.ExportLogsServiceResponse()
        message.partial_success.rejected_log_records = count
    else:
        message = metrics_service_pb2.ExportMetricsServiceResponse()
        message.partial_success.rejected_data_points = count
    message.partial_success.error_message = text
    return _json(message) if json else message.SerializeToString()


def _json(message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None).encode()
