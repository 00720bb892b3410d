"""The embedded store as ClickHouse over HTTP, read-only: for Grafana, ClickHouse clients and BI tools.

Questions run on connections and threads of their own, as many as `queries_concurrent`, each with limits; more wait in a
short queue and then are told to come back. So they never stand in the way of what is being stored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import aiohttp
import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from receiver.auth import Tokens
from receiver.config import MIB, Address, HostPort, parse_address
from receiver.connections import Connection, Connections
from receiver.inflate import Gunzip
from spanwise.clickhouse_wire import Outlet, best_encoding, exception_block
from spanwise.query.embedded import Answer, EmbeddedQueries, QueryLimits, Question
from spanwise.stage import OverloadedError
from spanwise.store import QueryError, StoreError
from spanwise.telemetry import Telemetry
from spanwise.web import ReaderConfig, foreign

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_DISPLAY_NAME: Final = "spanwise"
_HELD_BYTES: Final = MIB
"""An answer up to this size is sent whole: with its length, its full summary, and an error instead of half of it."""
_WAITED_BYTES: Final = 64 * MIB
_WRITE_BYTES: Final = 256 << 10
_STOP_S: Final = 5.0
_PATIENCE_S: Final = 0.1
"""How long the engine may take to see that nobody reads on, before it is told to stop, and told again."""
_LINGER_S: Final = 1.0
"""How long a refused client is listened to, so that it reads the answer instead of a connection reset."""
_QUERY_ID: Final = re.compile(r"[!-~]{1,128}")
_TRANSPORT: Final = frozenset(
    {"query", "database", "default_format", "query_id", "user", "password", "compress", "enable_http_compression"}
    | {"wait_end_of_query", "client_protocol_version", "session_id", "session_timeout", "session_check", "quota_key"}
    | {"buffer_size", "send_progress_in_http_headers", "http_headers_progress_interval_ms", "role", "stacktrace"}
    | {"cancel_http_readonly_queries_on_client_close", "http_zlib_compression_level", "decompress", "query_kind"}
    | {"network_compression_method", "network_zstd_compression_level", "add_http_cors_header", "log_comment"}
    | {"http_write_exception_in_output_format", "date_time_input_format", "cast_string_to_dynamic_use_inference"}
    | {"async_insert", "wait_for_async_insert", "max_insert_block_size", "log_queries"}
)
"""About the connection, inserts or logs: read here, or without meaning for an answer."""
_STATUS: Final = {
    194: 401,  # REQUIRED_PASSWORD
    **dict.fromkeys((164, 192, 193, 497, 516), 403),  # READONLY, UNKNOWN_USER, ..., ACCESS_DENIED
    **dict.fromkeys((46, 47, 50, 60, 63, 73, 78, 81, 115), 404),  # what is named does not exist
    159: 408,  # TIMEOUT_EXCEEDED
    **dict.fromkeys((6, 8, 15, 25, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 70, 72), 400),
    **dict.fromkeys((117, 130, 167, 168, 306, 321, 386, 427, 456, 457), 400),
    223: 413,  # QUERY_IS_TOO_LARGE
    48: 501,  # NOT_IMPLEMENTED
    202: 503,  # TOO_MANY_SIMULTANEOUS_QUERIES
}
"""As a server answers, but 4xx instead of its 500 where the question is to blame; anything else is 500."""


class ClickHouseConfig(BaseModel):
    """Where the embedded store answers as ClickHouse over HTTP, and how much a question may take there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Literal["off"] | HostPort = Field(
        "127.0.0.1:8123", description="HOST:PORT; port 0 lets the system choose, `off` leaves it away."
    )
    insecure: bool = Field(False, description="Allow listening beyond this machine without `web.tokens`.")
    queries_concurrent: int = Field(4, ge=1, le=64, description="Queries that run at once.")
    queries_queue: int = Field(128, ge=0, le=1024, description="Queries that wait; further ones are refused.")
    queue_timeout_s: float = Field(10, gt=0, description="How long a query waits for its turn before it is refused.")
    query_timeout_s: int = Field(30, ge=1, description="Longest run time of a query.")
    query_memory_bytes: int = Field(512 << 20, ge=64 << 20, description="Most memory a query may use.")
    query_rows_max: int = Field(1_000_000, ge=1, description="Most rows a query may answer with.")
    query_bytes_max: int = Field(256 << 20, ge=1 << 20, description="Most bytes a query may answer with.")
    query_threads: int = Field(2, ge=1, description="Threads a query may use.")
    answer_timeout_s: float = Field(120, gt=0, description="Longest time until the client has taken the answer.")
    request_bytes_max: int = Field(1 << 20, ge=1024, description="Length of a request: the query and its parameters.")
    request_timeout_s: float = Field(10, gt=0, description="How long a request may take to arrive.")
    connections_max: int = Field(128, ge=1, le=10_000, description="Connections that are open at once.")

    @property
    def listens(self) -> bool:
        return self.address != "off"

    @property
    def needs_tokens(self) -> bool:
        """Whether other machines can reach it, and that is not said to be wanted for everybody."""
        return self.listens and not self.insecure and not parse_address(self.address).is_loopback

    @property
    def limits(self) -> QueryLimits:
        return QueryLimits(
            seconds=self.query_timeout_s,
            memory_bytes=self.query_memory_bytes,
            rows=self.query_rows_max,
            bytes=self.query_bytes_max,
            threads=self.query_threads,
        )


@dataclass(slots=True)
class _Asked:
    """A request, read."""

    parameters: dict[str, str]
    body: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    format: str = "TabSeparated"
    encoding: str = ""
    """An HTTP content encoding, '' for none."""
    frames: bool = False
    """Whether it is to come in ClickHouse's own compression."""
    revision: int = 0
    """Of the client's protocol; it shapes the Native format."""
    waits: bool = False
    outcome: str = "ok"

    @property
    def statement(self) -> str:
        return "\n".join(part for part in (self.parameters.get("query", ""), self.body) if part)


class ClickHouseServer:
    """Serves one embedded store on one address. Construction raises ValueError if a token cannot be used."""

    def __init__(
        self,
        config: ClickHouseConfig,
        queries: EmbeddedQueries,
        readers: Sequence[ReaderConfig],
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._queries = queries
        self._telemetry = telemetry
        self._clock = clock
        self._tokens = Tokens(readers)
        self._guard_host = parse_address(config.address).is_loopback
        self._slots = asyncio.Semaphore(config.queries_concurrent)
        self._waiting = self._running = 0
        self._threads = ThreadPoolExecutor(config.queries_concurrent, thread_name_prefix="spanwise-clickhouse")
        self._cancellers = ThreadPoolExecutor(1, thread_name_prefix="spanwise-clickhouse-cancel")
        self._server: Connections | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> Address:
        """Bind and serve. Returns the real address. Raises OSError if it cannot be bound."""
        wanted = parse_address(self._config.address)
        self._server = Connections(
            self._answer,
            connections_max=self._config.connections_max,
            header_timeout_s=self._config.request_timeout_s,
            manners=self,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            lingering_time=_LINGER_S,
            max_line_size=64 << 10,
            max_field_size=16 << 10,
        )
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, wanted.host, wanted.port, backlog=256)
        return Address(wanted.host, self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Cancel what runs and wait until the store is no longer asked."""
        if self._listener is not None and self._server is not None:
            self._listener.close()
            self._server.pre_shutdown()
            await self._server.shutdown(0)
        quiet = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                for _ in range(self._config.queries_concurrent):
                    await self._slots.acquire()
            quiet = True
        for threads in (self._threads, self._cancellers):
            # a connection that one of them holds would keep the engine open
            await asyncio.to_thread(threads.shutdown, wait=quiet, cancel_futures=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, Connection)  # noqa: S101 - what our factory makes
        with protocol.busy():
            asked = _Asked(dict(request.query))
            began, outcome = self._clock(), "left"
            try:
                response = await self._respond(request, asked)
                outcome = asked.outcome
            except (QueryError, StoreError, OverloadedError) as error:
                response, outcome = self._refusal(asked, error), self._told(error)[1]
            except ConnectionError:
                raise
            except Exception as error:
                # The message may quote rows, so only its type is logged and nothing of it is told.
                log.exception("clickhouse_request_failed", error_type=type(error).__name__)
                error = StoreError("the request failed inside Spanwise")
                response, outcome = self._refusal(asked, error), self._told(error)[1]
            finally:
                if asked.statement.strip():
                    self._telemetry.queried(outcome, self._clock() - began)
            return response

    async def _respond(self, request: web.BaseRequest, asked: _Asked) -> web.StreamResponse:
        if why := foreign(request, loopback_only=self._guard_host):
            raise QueryError(why, code=497, name="ACCESS_DENIED")
        if request.path in {"/ping", "/replicas_status"}:
            return self._plain("Ok.\n")
        if request.path != "/":
            return self._plain(f"There is no handle {request.path}\n\nUse / or /ping for health checks.\n", 404)
        if request.method not in {"GET", "POST"}:
            return self._plain("Use GET or POST.\n", 405)
        self._authorise(request, asked)
        await self._read(request, asked)
        if not asked.statement.strip():
            if request.method == "GET":
                return self._plain("Ok.\n")
            raise QueryError("Empty query", code=62, name="SYNTAX_ERROR")
        question = self._question(request, asked)
        async with self._slot(), self._taken_in_time(request):
            answer = await self._begun(question)
            try:
                return await self._deliver(request, asked, answer)
            finally:
                await self._let_go(answer)

    # Connections without a request, see `receiver.connections.Manners`

    def too_many(self) -> bytes:
        self._telemetry.connection_refused("connections")
        _, _, text = self._told(OverloadedError(f"over {self._config.connections_max} connections are open"))
        head = f"Content-Length: {len(text)}\r\nX-ClickHouse-Exception-Code: 202\r\nRetry-After: 1\r\nConnection: close"
        return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n\r\n{text}".encode()

    def slow_header(self) -> None:
        self._telemetry.connection_refused("slow_header")

    def unreadable(self, status: int) -> web.Response:
        self._telemetry.connection_refused("invalid_http" if status < 500 else "internal_error")
        return self._plain("not a valid HTTP request\n", status)

    # What is asked, and by whom

    def _authorise(self, request: web.BaseRequest, asked: _Asked) -> None:
        if not self._tokens:
            return
        presented = _credential(request.headers, asked.parameters)
        if presented is None:
            raise QueryError(
                "a token is needed: send it as the password of any user, or as `Authorization: Bearer TOKEN`",
                code=194,
                name="REQUIRED_PASSWORD",
            )
        reader = self._tokens.holder(f"Bearer {presented}")
        if reader is None:
            raise QueryError(
                "default: Authentication failed: password is incorrect, or there is no user with such name",
                code=516,
                name="AUTHENTICATION_FAILED",
            )
        if reader.tenant:
            raise QueryError(
                "SQL reads the rows of all tenants, and the token is bound to one: use a token without `tenant`",
                code=497,
                name="ACCESS_DENIED",
            )

    async def _read(self, request: web.BaseRequest, asked: _Asked) -> None:
        """The body: the query or the rest of it, or a form with the query and its parameters."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self._config.request_timeout_s):
                if request.content_type == "multipart/form-data":
                    await self._read_form(request, asked)
                else:
                    asked.body = (await self._read_text(request)).decode("utf-8")
        except TimeoutError:
            raise QueryError("the request came too slowly", code=159, name="TIMEOUT_EXCEEDED") from None
        except UnicodeDecodeError:
            raise QueryError("the query is not UTF-8 text", code=62, name="SYNTAX_ERROR") from None
        except ValueError as error:
            raise QueryError(f"the body cannot be read: {error}", code=117, name="INCORRECT_DATA") from None

    async def _read_text(self, request: web.BaseRequest) -> bytes:
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"gzip", "identity"}:
            raise _unsupported("send the body as gzip or identity")
        gunzip = Gunzip() if encoding == "gzip" else None
        pieces, size = [], 0
        while chunk := await request.content.readany():
            for piece in gunzip.feed(chunk) if gunzip else (chunk,):
                size += len(piece)
                self._refuse_long(size)
                pieces.append(piece)
        if gunzip and pieces:
            gunzip.finish()
        return b"".join(pieces)

    async def _read_form(self, request: web.BaseRequest, asked: _Asked) -> None:
        size = 0
        async for part in aiohttp.MultipartReader(request.headers, request.content):
            if not isinstance(part, aiohttp.BodyPartReader) or part.filename is not None or not part.name:
                raise _unsupported("external tables are not supported")
            text = bytearray()
            while chunk := await part.read_chunk():
                size += len(chunk)
                self._refuse_long(size)
                text += chunk
            asked.parameters[part.name] = text.decode("utf-8")

    def _refuse_long(self, size: int) -> None:
        if size > self._config.request_bytes_max:
            raise QueryError(
                f"the request is longer than {self._config.request_bytes_max} bytes (clickhouse.request_bytes_max)",
                code=223,
                name="QUERY_IS_TOO_LARGE",
            )

    def _question(self, request: web.BaseRequest, asked: _Asked) -> Question:
        given = asked.parameters
        name = asked.id
        if _QUERY_ID.fullmatch(given.get("query_id", "")):
            asked.id = given["query_id"]
        asked.format = request.headers.get("X-ClickHouse-Format") or given.get("default_format") or asked.format
        asked.waits = _is_on(given.get("wait_end_of_query", ""))
        asked.frames = _is_on(given.get("compress", ""))
        if _is_on(given.get("decompress", "")):
            raise QueryError(
                "decompress=1 is not supported: send the query plain or as gzip", code=48, name="NOT_IMPLEMENTED"
            )
        if (revision := given.get("client_protocol_version", "")).isdecimal():
            asked.revision = int(revision[:9])
        if not asked.frames and given.get("enable_http_compression", "1") != "0":
            asked.encoding = best_encoding(request.headers.get("Accept-Encoding", ""))
        return Question(
            statement=asked.statement,
            name=name,
            format=asked.format,
            database=request.headers.get("X-ClickHouse-Database") or given.get("database", ""),
            parameters={name[6:]: value for name, value in given.items() if name.startswith("param_")},
            settings={
                name: value for name, value in given.items() if name not in _TRANSPORT and not name.startswith("param_")
            },
        )

    # Turns

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.locked() and self._waiting >= self._config.queries_queue:
            raise OverloadedError("Too many simultaneous queries: try again in a second")
        self._count(waiting=1)
        try:
            async with asyncio.timeout(self._config.queue_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise OverloadedError("Too many simultaneous queries: waited too long for a turn") from None
        finally:
            self._count(waiting=-1)
        self._count(running=1)
        try:
            yield
        finally:
            self._count(running=-1)
            self._slots.release()

    def _count(self, *, running: int = 0, waiting: int = 0) -> None:
        self._running += running
        self._waiting += waiting
        self._telemetry.queries_running(self._running, self._waiting)

    @asynccontextmanager
    async def _taken_in_time(self, request: web.BaseRequest) -> AsyncIterator[None]:
        """Cut the connection of a client that takes its answer too slowly: its turn ends for the others."""
        try:
            async with asyncio.timeout(self._config.answer_timeout_s):
                yield
        except TimeoutError:
            self._telemetry.connection_refused("slow_answer")
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError("the client took its answer too slowly") from None

    async def _on_thread(self, call: Callable[[], Result], interrupt: Callable[[], None] | None = None) -> Result:
        """Run to the end even if the asker leaves, but make that soon: the turn is taken as long as the thread is."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await self._ended(running, interrupt)
            raise

    async def _begun(self, question: Question) -> Answer:
        asking = asyncio.get_running_loop().run_in_executor(self._threads, self._queries.ask, question)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await self._ended(asking)
            if asking.exception() is None:
                await self._let_go(asking.result())
            raise

    async def _let_go(self, answer: Answer) -> None:
        closing = asyncio.get_running_loop().run_in_executor(self._threads, answer.close)
        await self._ended(closing, answer.cancel, _PATIENCE_S)
        closing.result()

    async def _ended(
        self, running: asyncio.Future[Any], interrupt: Callable[[], None] | None = None, patience_s: float = 0.0
    ) -> None:
        """Wait for a thread whatever else happens: what it holds is not to be touched before."""
        loop = asyncio.get_running_loop()
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running], timeout=patience_s)
                if interrupt is not None and not running.done():
                    await loop.run_in_executor(self._cancellers, interrupt)
            # a query that only begins is not there yet to be stopped
            patience_s = _PATIENCE_S
        running.exception()

    # Answers

    async def _deliver(self, request: web.BaseRequest, asked: _Asked, answer: Answer) -> web.StreamResponse:
        """Whole if it is small or waited for, else in pieces."""
        limit = _WAITED_BYTES if asked.waits else _HELD_BYTES
        held = bytearray()
        while len(held) < limit:
            piece = await self._on_thread(answer.read, answer.cancel)
            if not piece:
                return await self._whole(request, asked, answer, bytes(held))
            held += piece
        return await self._in_pieces(request, asked, answer, bytes(held))

    async def _whole(self, request: web.BaseRequest, asked: _Asked, answer: Answer, body: bytes) -> web.StreamResponse:
        summary = answer.summary
        figures = {
            "read_rows": summary.read_rows,
            "read_bytes": summary.read_bytes,
            "written_rows": 0,
            "written_bytes": 0,
            "total_rows_to_read": 0,
            "result_rows": 0,
            "result_bytes": len(body),
            "elapsed_ns": int(summary.elapsed_s * 1e9),
        }
        outlet = self._outlet(asked, answer)
        body = await self._on_thread(lambda: outlet.feed(body) + outlet.finish())
        headers = self._headers(asked, answer)
        headers["X-ClickHouse-Summary"] = json.dumps({name: str(figure) for name, figure in figures.items()})
        response = web.StreamResponse(headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), _WRITE_BYTES):
            # waits for the client, so that no more than this is left when the turn is over
            await response.write(body[start : start + _WRITE_BYTES])
        await response.write_eof()
        return response

    async def _in_pieces(
        self, request: web.BaseRequest, asked: _Asked, answer: Answer, first: bytes
    ) -> web.StreamResponse:
        outlet = self._outlet(asked, answer)
        ready = await self._on_thread(lambda: outlet.feed(first))
        tag = secrets.token_hex(8)
        response = web.StreamResponse(headers=self._headers(asked, answer) | {"X-ClickHouse-Exception-Tag": tag})
        await response.prepare(request)
        try:
            await response.write(ready)
            while piece := await self._on_thread(lambda: outlet.next_of(answer.read), answer.cancel):
                await response.write(piece)
            await response.write(await self._on_thread(outlet.finish))
        except (QueryError, StoreError) as error:
            # too late for a status: what clients look for inside the answer, and no end of it
            _, asked.outcome, text = self._told(error)
            await response.write(outlet.broken_off(exception_block(text, tag)))
            if request.transport is not None:
                request.transport.close()
            return response
        await response.write_eof()
        return response

    @staticmethod
    def _outlet(asked: _Asked, answer: Answer) -> Outlet:
        revision = asked.revision if answer.format == "Native" else 0
        return Outlet(revision=revision, frames=asked.frames, encoding=asked.encoding)

    def _headers(self, asked: _Asked, answer: Answer | None = None) -> dict[str, str]:
        headers = {
            "X-ClickHouse-Query-Id": asked.id,
            "X-ClickHouse-Timezone": self._queries.timezone,
            "X-ClickHouse-Server-Display-Name": _DISPLAY_NAME,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Server": _DISPLAY_NAME,
        }
        if answer is not None:
            headers |= {"X-ClickHouse-Format": answer.format, "Content-Type": answer.content_type}
            if asked.encoding:
                headers["Content-Encoding"] = asked.encoding
        return headers

    def _told(self, error: Exception) -> tuple[int, str, str]:
        """Code, name and the text that clients take apart."""
        match error:
            case QueryError():
                # a code is what clients look for, and 36 is the most general one
                code, name = (error.code, error.name) if error.code else (36, "BAD_ARGUMENTS")
            case OverloadedError():
                code, name = 202, "TOO_MANY_SIMULTANEOUS_QUERIES"
            case _:
                code, name = 1000, "POCO_EXCEPTION"
        return code, name, f"Code: {code}. DB::Exception: {error}. ({name}) (version {self._queries.version})\n"

    def _refusal(self, asked: _Asked, error: Exception) -> web.Response:
        code, _, text = self._told(error)
        headers = self._headers(asked) | {
            "X-ClickHouse-Exception-Code": str(code),
            "Content-Type": "text/plain; charset=UTF-8",
        }
        status = _STATUS.get(code, 500)
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Spanwise", Bearer'
        if status == 503:
            headers["Retry-After"] = "1"
        response = web.Response(status=status, text=text, headers=headers)
        if code in {159, 223}:
            # the rest of the request is not worth reading for the sake of the connection
            response.force_close()
        return response

    def _plain(self, text: str, status: int = 200) -> web.Response:
        return web.Response(
            text=text, status=status, headers={"Content-Type": "text/html; charset=UTF-8", "Server": _DISPLAY_NAME}
        )


def _unsupported(text: str) -> QueryError:
    return QueryError(text, code=48, name="NOT_IMPLEMENTED")


def _credential(headers: Mapping[str, str], parameters: Mapping[str, str]) -> str | None:
    """What the asker presents as a token: a bearer token, or the password of any user, wherever clients put it."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return headers.get("X-ClickHouse-Key") or parameters.get("password") or None


def _is_on(setting: str) -> bool:
    return setting not in {"", "0", "false"}
