"""The endpoint over a real store, on a loop of its own, so that tests may use blocking clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3

from spanwise.clickhouse_http import ClickHouseConfig, ClickHouseServer
from spanwise.query.embedded import EmbeddedQueries
from spanwise.store import Store
from spanwise.telemetry import Telemetry
from spanwise.web import ReaderConfig


@dataclass
class Endpoint:
    host: str
    port: int
    telemetry: Telemetry
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, maxsize=16))

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ask(
        self, statement: str | bytes = b"", headers: Mapping[str, str] | None = None, /, **parameters: str
    ) -> urllib3.BaseHTTPResponse:
        """POST a query; keywords go into the address."""
        body = statement.encode() if isinstance(statement, str) else statement
        address = f"{self.url}/?{urlencode(parameters)}"
        return self.http.request("POST", address, body=body, headers=dict(headers or {}), timeout=30)

    def text(self, statement: str, **parameters: str) -> str:
        response = self.ask(statement, **parameters)
        assert response.status == 200, response.data
        return response.data.decode()


@contextmanager
def serving(store: Store, readers: Sequence[ReaderConfig] = (), **options: Any) -> Iterator[Endpoint]:
    config, telemetry = ClickHouseConfig(address="127.0.0.1:0", **options), Telemetry()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        async def make() -> ClickHouseServer:
            return ClickHouseServer(config, EmbeddedQueries(store, config.limits), readers, telemetry)

        server = asyncio.run_coroutine_threadsafe(make(), loop).result(10)
        address = asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        endpoint = Endpoint(address.host, address.port, telemetry)
        try:
            yield endpoint
        finally:
            endpoint.http.clear()
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
