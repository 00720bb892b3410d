"""An OTLP/HTTP endpoint that keeps what it is sent and answers as it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.http_server import serving


@dataclass
class Endpoint:
    url: str = ""
    refuse_first: int = 0
    """So many requests are answered 503 first."""
    retry_after: str = "0.1"
    poison: str = ""
    """A request that has a span of this name is answered 400 as a whole."""
    partial: str = ""
    """A span of this name is rejected alone."""
    spans: list[str] = field(default_factory=list)
    """Names of accepted spans, in order of arrival."""
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    """(path, status, bytes)"""

    def answer(self, path: str, content_type: str, body: bytes) -> tuple[int, ExportTraceServiceResponse]:
        response = ExportTraceServiceResponse()
        if self.refuse_first:
            self.refuse_first -= 1
            return 503, response
        request = ExportTraceServiceRequest()
        try:
            if content_type == "application/json":
                json_format.Parse(_base64_ids(body), request)
            else:
                request.ParseFromString(body)
        except (DecodeError, json_format.ParseError):
            return 400, response
        names = [span.name for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
        if self.poison and self.poison in names:
            return 400, response
        self.spans += [name for name in names if not self.partial or name != self.partial]
        rejected = names.count(self.partial) if self.partial else 0
        if rejected:
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = "span id is empty"
        return 200, response


def _base64_ids(body: bytes) -> bytes:
    """Protobuf's own JSON has base64 where OTLP has hex; which spans arrive is told by their names, so drop the ids."""
    return re.sub(rb'"(traceId|spanId|parentSpanId)":\s*"[^"]*"', rb'"\1":""', body)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(404, b"", "text/plain")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            content_type = self.headers["Content-Type"]
            status, response = state.answer(self.path, content_type, body)
            state.requests.append((self.path, status, len(body)))
            if content_type == "application/json":
                self._send(status, json_format.MessageToJson(response).encode(), content_type)
            else:
                self._send(status, response.SerializeToString(), content_type)

        def _send(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", state.retry_after)
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as state.url:
        yield state
