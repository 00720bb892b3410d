"""The HTTP API: SQL and trace reads for people and tools, health and metrics for machines.

Everything here reads. Blocking reads run on threads of their own, as many as `reads_concurrent`; more wait in a short
queue and then are told to come back. A page of another origin, or one that rebinds its name to this machine, gets
nothing.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final, Self
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from receiver.auth import Tokens
from receiver.config import TENANT_PATTERN, Address, HostPort, SecretConfig, parse_address
from spanwise.query.ask import (
    SEVERITIES,
    ConfinedError,
    FindingFilter,
    ManyTracesError,
    NoSuchTraceError,
    Queries,
    TraceFilter,
)
from spanwise.stage import OverloadedError
from spanwise.store import QueryError, StoreError
from spanwise.telemetry import Telemetry, version

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORMATS: Final = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "table": "application/x-ndjson",
}
"""What `POST /api/v1/sql` can answer. `table` is lines of JSON: the column names, their types, then each row."""

_OPEN_PATHS: Final = ("/healthz", "/readyz")
_TENANT_PATHS: Final = ("/api/v1/traces", "/api/v1/findings", "/api/v1/summary", "/api/v1/sql")
"""And what is below them: all that a token bound to a tenant may ask for. Its reads are limited by `Queries.within`."""
_RETRY_AFTER: Final = {"Retry-After": "1"}
_TENANT: Final = web.RequestKey("tenant", str)


class ReaderConfig(SecretConfig):
    """A bearer token that may read: everything, or what belongs to one tenant."""

    name: str = Field(min_length=1, max_length=64, description="Who holds the token; for people, not checked.")
    tenant: str | None = Field(
        None,
        pattern=TENANT_PATTERN,
        description="The only tenant it may read, without SQL and without what is about the whole program (metrics, "
        "status). Empty: it reads everything, of every tenant.",
    )

    @property
    def owner(self) -> str:
        return f"reader {self.name!r}" + (f" of tenant {self.tenant!r}" if self.tenant else "")


class WebConfig(BaseModel):
    """Where the API listens, who may read and how many at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: HostPort = Field("127.0.0.1:8080", description="HOST:PORT; port 0 lets the system choose.")
    tokens: tuple[ReaderConfig, ...] = Field(
        (), description="Bearer tokens for reading, metrics included. Empty: no token is asked for."
    )
    insecure: bool = Field(False, description="Allow listening beyond this machine without tokens.")
    sql_bytes_max: int = Field(256 << 10, ge=1024, description="Length of a query's text.")
    reads_concurrent: int = Field(4, ge=1, le=64, description="Reads of the store that run at once.")
    reads_queue: int = Field(16, ge=0, le=1024, description="Reads that wait; further ones are told to come back.")

    @model_validator(mode="after")
    def _guarded_beyond_loopback(self) -> Self:
        if not (parse_address(self.address).is_loopback or self.tokens or self.insecure):
            raise ValueError(
                f"address {self.address} can be reached from other machines and anybody could read everything; set "
                "`tokens`, or allow it with `insecure: true` (--insecure)"
            )
        return self


class ApiError(Exception):
    """A request that is answered with an error: what is wrong, and what to do about it."""

    def __init__(self, message: str, hint: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


@dataclass(frozen=True)
class Sources:
    """What the API shows, handed in by whoever runs it."""

    queries: Queries | None
    """None in a process that has no store."""
    telemetry: Telemetry
    not_ready: Callable[[], Mapping[str, str]]
    """Reasons, by part, why the program cannot take or store data now; empty when it can."""
    status: Callable[[], Mapping[str, Any]]
    """Version, the addresses `grpc`, `http` and `web`, journal and store, for people."""


def foreign(request: web.BaseRequest, *, loopback_only: bool) -> str:
    """Why a request is refused that a page made: of another origin, or with a name that was made to resolve to us."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if loopback_only and not Address(host, 0).is_loopback:
        return "this address answers to localhost only"
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return "pages of other origins may not ask"
    return ""


class WebServer:
    """Serves the API on one address until it is stopped. Construction raises ValueError if a token cannot be used."""

    def __init__(self, config: WebConfig, sources: Sources) -> None:
        self._config = config
        self._api = _Api(config, sources)
        self._runner: web.AppRunner | None = None

    async def start(self) -> Address:
        """Bind and serve. Returns the real address. Raises OSError if it cannot be bound."""
        wanted = parse_address(self._config.address)
        runner = web.AppRunner(self._api.app(), access_log=None, shutdown_timeout=2, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, wanted.host, wanted.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return Address(wanted.host, runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._api.close()


class _Api:
    def __init__(self, config: WebConfig, sources: Sources) -> None:
        self._config = config
        self._sources = sources
        self._tokens = Tokens(config.tokens)
        self._guard_host = parse_address(config.address).is_loopback
        self._slots = asyncio.Semaphore(config.reads_concurrent)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(config.reads_concurrent, thread_name_prefix="spanwise-query")

    def app(self) -> web.Application:
        app = web.Application(
            client_max_size=self._config.sql_bytes_max, middlewares=[_errors, self._same_origin, self._authorised]
        )
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/healthz", self.healthz),
                web.get("/readyz", self.readyz),
                web.get("/metrics", self.metrics),
                web.post("/api/v1/sql", self.sql),
                web.get("/api/v1/traces", self.traces),
                web.get("/api/v1/traces/{trace_id}", self.trace),
                web.get("/api/v1/findings", self.findings),
                web.get("/api/v1/summary", self.summary),
                web.get("/api/v1/status", self.status),
            ]
        )
        return app

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Who may ask

    @web.middleware
    async def _same_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if why := foreign(request, loopback_only=self._guard_host):
            raise ApiError(why, "ask http://127.0.0.1 or http://localhost, from a program", status=403)
        return await handler(request)

    @web.middleware
    async def _authorised(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._tokens and request.path not in _OPEN_PATHS:
            reader = self._tokens.holder(request.headers.get("Authorization", ""))
            if reader is None:
                raise ApiError("a valid token is needed", "send the header `Authorization: Bearer TOKEN`", status=401)
            if reader.tenant and not request.path.startswith(_TENANT_PATHS):
                raise ApiError(
                    "this is about all tenants, and the token is bound to one",
                    f"it may ask for {', '.join(_TENANT_PATHS[:-1])}",
                    status=403,
                )
            request[_TENANT] = reader.tenant or ""
        return await handler(request)

    # Health

    async def healthz(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        reasons = self._sources.not_ready()
        if reasons:
            return _json({"status": "not ready", "reasons": dict(reasons)}, status=503)
        return _json({"status": "ready"})

    async def metrics(self, _request: web.Request) -> web.Response:
        text = await asyncio.to_thread(self._sources.telemetry.exposition)
        return web.Response(
            body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8", **_PLAIN_HEADERS}
        )

    async def status(self, _request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._sources.status))

    # Reads

    def _queries(self, request: web.Request) -> Queries:
        """What the asker may read."""
        if self._sources.queries is None:
            raise ApiError("this process only receives and has no store", "ask a worker (`spanwise work`)", status=404)
        tenant = request.get(_TENANT, "")
        return self._sources.queries.within(tenant) if tenant else self._sources.queries

    async def traces(self, request: web.Request) -> web.Response:
        chosen = _trace_filter(request.query)
        return _json({"traces": await self._read(lambda: self._queries(request).traces(chosen))})

    async def trace(self, request: web.Request) -> web.Response:
        trace_id = request.match_info["trace_id"].lower()
        if not 1 <= len(trace_id) <= 32 or trace_id.strip("0123456789abcdef"):
            raise ApiError("a trace id is up to 32 hex digits", "`spanwise traces` lists them")
        return _json(await self._read(lambda: self._queries(request).trace(trace_id)))

    async def findings(self, request: web.Request) -> web.Response:
        chosen = _finding_filter(request.query)
        return _json({"findings": await self._read(lambda: self._queries(request).findings(chosen))})

    async def summary(self, request: web.Request) -> web.Response:
        return _json(await self._read(self._queries(request).summary))

    async def sql(self, request: web.Request) -> web.StreamResponse:
        statement, format_, parameters = await self._statement(request)
        async with self._slot():
            pieces = await self._on_thread(self._queries(request).sql, statement, format_, parameters)
            try:
                return await self._stream(request, pieces, FORMATS[format_])
            finally:
                close = getattr(pieces, "close", None)
                if close is not None:
                    await self._on_thread(close)

    async def _statement(self, request: web.Request) -> tuple[str, str, dict[str, str]]:
        body = await request.read()
        format_ = request.query.get("format", "json")
        parameters: Any = {name[6:]: value for name, value in request.query.items() if name.startswith("param_")}
        try:
            statement = body.decode("utf-8")
            if request.content_type == "application/json":
                asked = orjson.loads(body)
                statement, format_ = asked["query"], asked.get("format", format_)
                parameters = {name: str(value) for name, value in asked.get("parameters", parameters).items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ApiError(
                "the request is not a query", 'send the SQL as text, or JSON {"query": "...", "format": "json"}'
            ) from None
        if not isinstance(statement, str) or not statement.strip():
            raise ApiError("the query is empty", "send the SQL as the body of the request")
        if format_ not in FORMATS:
            raise ApiError("there is no such format", f"use one of {', '.join(FORMATS)}")
        return statement, format_, parameters

    async def _stream(self, request: web.Request, pieces: Iterator[bytes], content_type: str) -> web.StreamResponse:
        """Answer 400 while that is still possible; afterwards an error can only cut the connection."""
        piece = await self._on_thread(_next, pieces)
        response = web.StreamResponse(headers={"Content-Type": content_type, **_PLAIN_HEADERS})
        await response.prepare(request)
        sent = 0
        try:
            while piece is not None:
                sent += len(piece)
                await response.write(piece)
                piece = await self._on_thread(_next, pieces)
        except ConnectionError:
            raise
        except Exception as error:  # whatever a driver raises, the answer must not look complete
            log.warning("query_cut", error=type(error).__name__, sent_bytes=sent)
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response

    async def _read(self, read: Callable[[], Any]) -> Any:
        async with self._slot():
            return await self._on_thread(read)

    async def _on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run to the end even if the asker leaves: the slot is taken as long as the thread is."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.locked() and self._waiting >= self._config.reads_queue:
            raise ApiError("too many reads are running", "try again in a second", status=503)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    # The page

    async def page(self, _request: web.Request) -> web.Response:
        status = await asyncio.to_thread(self._sources.status)
        return web.Response(
            text=_page(status),
            content_type="text/html",
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
                "base-uri 'none'; form-action 'none'",
                **_PLAIN_HEADERS,
            },
        )


_PLAIN_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error is JSON `{"error": {"message", "hint"}}`."""
    try:
        return await handler(request)
    except (
        ApiError,
        QueryError,
        StoreError,
        OverloadedError,
        ConfinedError,
        NoSuchTraceError,
        ManyTracesError,
    ) as error:
        told = _told(error)
        return _error(told.status, told.message, told.hint)
    except web.HTTPRequestEntityTooLarge:
        return _error(413, "the request is too long", "send a shorter query (`web.sql_bytes_max`)")
    except web.HTTPException as error:
        return _error(error.status, error.reason.lower(), "GET / lists what there is", allow=error.headers.get("Allow"))
    except ConnectionError:
        raise
    except Exception as error:
        # The message may quote rows, so only its type is logged and nothing of it is told.
        log.exception("request_failed", path=request.path, error_type=type(error).__name__)
        return _error(500, "the request failed inside Spanwise", "the log of the server says where")


def _told(error: Exception) -> ApiError:
    """What a failed read looks like from outside."""
    match error:
        case ApiError():
            told = error
        case ConfinedError():
            told = ApiError(
                "SQL reads the rows of all tenants, and the token is bound to one",
                f"ask {', '.join(_TENANT_PATHS[:-1])}, or use a token without `tenant`",
                status=403,
            )
        case NoSuchTraceError():
            told = ApiError("there is no such trace", "a new one takes a second to appear", status=404)
        case ManyTracesError():
            some = ", ".join(error.trace_ids)
            told = ApiError("several traces begin so", f"give more digits of one of {some}", status=409)
        case OverloadedError():
            told = ApiError("too many reads are running", "try again in a second", status=503)
        case StoreError():
            log.warning("store_read_failed", code=error.code, name=error.name)
            told = ApiError("the store does not answer", "try again in a second; the log says why", status=503)
        case _:
            told = ApiError(str(error), "`spanwise schema` lists the tables and their columns")
    return told


def _error(status: int, message: str, hint: str, *, allow: str | None = None) -> web.Response:
    headers = dict(_PLAIN_HEADERS)
    if status == 503:
        headers |= _RETRY_AFTER
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if allow:
        headers["Allow"] = allow
    return _json({"error": {"message": message, "hint": hint}}, status=status, headers=headers)


def _json(value: object, *, status: int = 200, headers: Mapping[str, str] = _PLAIN_HEADERS) -> web.Response:
    body = orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))  # exact, and a JSON number
    raise TypeError(f"cannot show a {type(value).__name__} as JSON")


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def _trace_filter(query: Mapping[str, str]) -> TraceFilter:
    _refuse_unknown(query, TraceFilter)
    return TraceFilter(
        limit=min(_number(query, "limit", int) or 20, 1000),
        since_s=_number(query, "since_s", float),
        before_s=_number(query, "before_s", float),
        service=query.get("service", ""),
        agent=query.get("agent", ""),
        model=query.get("model", ""),
        conversation=query.get("conversation", ""),
        errors=query.get("errors", "") in ("1", "true"),
        cost_min_usd=_number(query, "cost_min_usd", Decimal),
    )


def _finding_filter(query: Mapping[str, str]) -> FindingFilter:
    _refuse_unknown(query, FindingFilter)
    severity = query.get("severity", "info")
    if severity not in SEVERITIES:
        raise ApiError("there is no such severity", f"use one of {', '.join(SEVERITIES)}")
    return FindingFilter(
        limit=min(_number(query, "limit", int) or 50, 1000),
        since_s=_number(query, "since_s", float),
        severity=severity,
        trace_id=query.get("trace_id", "").lower(),
        signature=query.get("signature", ""),
        service=query.get("service", ""),
        agent=query.get("agent", ""),
        model=query.get("model", ""),
        tool=query.get("tool", ""),
    )


def _refuse_unknown(query: Mapping[str, str], filters: type[TraceFilter | FindingFilter]) -> None:
    known = sorted(field.name for field in fields(filters))
    if set(query) - set(known):
        raise ApiError("there is no such filter", f"the filters are {', '.join(known)}")


def _number(query: Mapping[str, str], name: str, type_: Callable[[str], Any]) -> Any:
    if name not in query:
        return None
    try:
        value = type_(query[name])
    except (ValueError, ArithmeticError):
        value = -1
    if not 0 <= value < 10**15:  # also refuses NaN
        raise ApiError(f"{name} must be a number, 0 or more", f"for instance {name}=1")
    return value


def _page(ports: Mapping[str, Any]) -> str:
    grpc, http, here = (html.escape(str(ports.get(name, "?"))) for name in ("grpc", "http", "web"))
    return _PAGE.format(version=html.escape(version()), grpc=grpc, http=http, web=here)


_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Spanwise</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #1b1f24 }}
pre, code {{ font: 14px/1.5 ui-monospace, monospace }}
pre {{ background: #f3f4f6; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px }}
td {{ padding: .1rem 1.5rem .1rem 0 }}
</style>
<h1>Spanwise {version}</h1>
<p>Takes OpenTelemetry traces of agents, keeps them durably, and answers SQL about what they did and what it cost.</p>
<table>
<tr><td>OTLP gRPC<td><code>{grpc}</code>
<tr><td>OTLP HTTP<td><code>{http}</code>
<tr><td>API, health, metrics<td><code>{web}</code>
</table>
<h2>Send traces</h2>
<p>Any OTLP exporter works. With the environment variables every SDK reads:</p>
<pre>OTEL_EXPORTER_OTLP_ENDPOINT=http://{http}
OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf</pre>
<p>or over gRPC:</p>
<pre>OTEL_EXPORTER_OTLP_ENDPOINT=http://{grpc}
OTEL_EXPORTER_OTLP_PROTOCOL=grpc</pre>
<h2>Look</h2>
<pre>spanwise traces --web http://{web}
spanwise sql --web http://{web} "SELECT agent_name, sum(cost_usd) FROM spans FINAL WHERE usage_scope = 'own' GROUP BY 1"
curl http://{web}/api/v1/sql --data-binary "SELECT count() FROM spans FINAL"</pre>
<ul>
<li><a href="/api/v1/traces">/api/v1/traces</a>
<li><a href="/api/v1/summary">/api/v1/summary</a>
<li><a href="/api/v1/status">/api/v1/status</a>
<li><a href="/readyz">/readyz</a>
<li><a href="/metrics">/metrics</a>
</ul>
"""
