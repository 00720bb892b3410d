"""A real API server over scripted reads."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from spanwise.query.ask import FindingFilter, ManyTracesError, NoSuchTraceError, TraceFilter
from spanwise.telemetry import Telemetry
from spanwise.web import Sources, WebConfig, WebServer

Answer = Callable[[], Iterator[bytes]]


@dataclass
class Reads:
    """Answers what it was told to, and remembers what it was asked."""

    answer: Answer = lambda: iter([b'{"n":1}\n'])
    traces_found: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def within(self, tenant: str) -> Reads:
        self.tenants.append(tenant)
        return self

    def sql(self, statement: str, format_: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        self.asked.append((statement, format_, dict(parameters)))
        return self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self.answer()
        finally:
            self.closed.set()

    def traces(self, chosen: TraceFilter) -> list[dict[str, Any]]:
        self.asked.append(chosen)
        return self.traces_found

    def trace(self, trace_id: str) -> dict[str, Any]:
        self.asked.append(trace_id)
        found = [trace for trace in self.traces_found if trace["trace_id"].startswith(trace_id)]
        if not found:
            raise NoSuchTraceError
        if len(found) > 1:
            raise ManyTracesError([trace["trace_id"] for trace in found])
        return {"trace": found[0], "spans": found[0].get("spans", []), "findings": []}

    def findings(self, chosen: FindingFilter) -> list[dict[str, Any]]:
        self.asked.append(chosen)
        return []

    def summary(self) -> dict[str, Any]:
        return {"spans": 7}


@dataclass
class Serving:
    url: str
    reads: Reads
    telemetry: Telemetry
    not_ready: dict[str, str]


@asynccontextmanager
async def serving(reads: Reads | None = None, **options: Any) -> AsyncIterator[Serving]:
    reads = reads or Reads()
    telemetry, not_ready = Telemetry(), dict[str, str]()
    addresses = {"grpc": "127.0.0.1:4317", "http": "127.0.0.1:4318", "web": "<b>&"}
    server = WebServer(
        WebConfig(address="127.0.0.1:0", **options),
        Sources(reads, telemetry, not_ready=lambda: not_ready, status=lambda: {"version": "1", **addresses}),
    )
    address = await server.start()
    try:
        yield Serving(f"http://{address}", reads, telemetry, not_ready)
    finally:
        await server.stop()
