"""aiohttp's connections with what they lack: a cap on how many are open, and a deadline for request headers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from aiohttp import web


class Manners(Protocol):
    """How a listener turns away whom it does not answer, and counts them."""

    def too_many(self) -> bytes:
        """A whole HTTP response for a connection over the cap."""

    def slow_header(self) -> None:
        """A connection was closed because its request headers did not come in time."""

    def unreadable(self, status: int) -> web.Response:
        """The answer to what is not HTTP, or, from status 500 on, to a defect of ours."""


class Connections(web.Server):
    """Open connections of one listener: their cap, and what each is made of."""

    def __init__(
        self, handler: Any, *, connections_max: int, header_timeout_s: float, manners: Manners, **kwargs: Any
    ) -> None:
        super().__init__(handler, **kwargs)
        self.connections_max = connections_max
        self.header_timeout_s = header_timeout_s
        self.manners = manners

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(web.RequestHandler):
    """One connection: request headers have to be complete in time."""

    def __init__(self, connections: Connections, **kwargs: Any) -> None:
        super().__init__(connections, **kwargs)
        self._connections = connections
        self._header_deadline: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._made_s = 0.0

    @property
    def age_s(self) -> float:
        return asyncio.get_running_loop().time() - self._made_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._made_s = asyncio.get_running_loop().time()
        if len(self._connections.connections) > self._connections.connections_max:
            if self.transport is not None:
                self.transport.write(self._connections.manners.too_many())
            self.force_close()
        else:
            self._expect_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_busy and self._header_deadline is None:
            self._expect_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._header_arrived()
        super().connection_lost(exc)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is answered no header is due."""
        self._header_arrived()
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """What aiohttp could not parse, answered in the form every refusal has."""
        with self.busy():
            result = self._connections.manners.unreadable(status)
            result.force_close()
            return result

    def _expect_header(self) -> None:
        seconds = self._connections.header_timeout_s
        self._header_deadline = asyncio.get_running_loop().call_later(seconds, self._header_overdue)

    def _header_arrived(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def _header_overdue(self) -> None:
        self._header_deadline = None
        self._connections.manners.slow_header()
        self.force_close()
