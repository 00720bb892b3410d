"""A small ClickHouse HTTP endpoint in front of chDB that can also misbehave.

It speaks what clickhouse-connect needs: statements in the body or in `query`, settings and `param_*` in the address,
raw inserts, gzip both ways, `X-ClickHouse-Summary` and exceptions with their code. `Fault`s are used up by inserts in
the order they were planted.

What it cannot prove: how a server behaves under load or on a cluster (replication, quorum, distributed inserts),
what authentication allows, the server's own limits on requests, sessions, the native block protocol, and errors in the
middle of a streamed answer. The engine behind it is the embedded one, so versions of a server are not compared either.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import ssl
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import chdb

FaultKind = Literal["error", "cut_before_commit", "cut_after_commit", "stall_after_commit"]

_TRANSPORT = {
    "query",
    "database",
    "user",
    "password",
    "query_id",
    "session_id",
    "session_timeout",
    "session_check",
    "client_protocol_version",
    "compress",
    "decompress",
    "wait_end_of_query",
    "buffer_size",
    "default_format",
    "enable_http_compression",
    "http_zlib_compression_level",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
    "role",
    "quota_key",
}
_INSERT = re.compile(rb"^\s*INSERT\s+INTO\b.*\bFORMAT\s+(\w+)\s*$", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(rb"\bFORMAT\s+\w+\s*;?\s*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)\.")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the next insert: an HTTP error, a cut connection, or an answer after `seconds`."""

    kind: FaultKind
    code: int = 210
    seconds: float = 0.0


@dataclass(slots=True)
class Seen:
    """What the endpoint received."""

    inserts: int = 0
    settings: list[dict[str, str]] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)
    """`user:password`, or `user by certificate NAME`."""


class ClickHouseHTTP:
    """Serves one chDB connection string on a port of its own until closed."""

    def __init__(self, engine: str, tls: ssl.SSLContext | None = None) -> None:
        self.engine = engine
        self.faults: list[Fault] = []
        self.seen = Seen()
        self.lock = threading.Lock()
        endpoint = self

        class Handler(_Handler):
            owner = endpoint

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def take_fault(self) -> Fault | None:
        with self.lock:
            return self.faults.pop(0) if self.faults else None

    def __enter__(self) -> ClickHouseHTTP:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: ClickHouseHTTP
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.owner.seen.logins.add(self._login())
        body = self._body()
        params = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):  # how the driver sends parameters that are long
            params, body = params | _form(kind, body), b""
        statement = params.get("query", "").encode()
        if not statement and _INSERT.match(line := body.split(b"\n", 1)[0]):
            statement, body = line, body[len(line) + 1 :]
        insert = _INSERT.match(statement)
        if insert:
            self._insert(statement, insert.group(1).decode(), body, params)
        else:
            self._query(statement + (b"\n" if statement and body else b"") + body, params)

    def _login(self) -> str:
        if self.headers.get("X-ClickHouse-SSL-Certificate-Auth") == "on":
            assert isinstance(self.connection, ssl.SSLSocket)
            subject: Any = (self.connection.getpeercert() or {}).get("subject", ())
            names = dict(pair for part in subject for pair in part)
            return f"{self.headers['X-ClickHouse-User']} by certificate {names.get('organizationalUnitName', '')}"
        return base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _connection(self, params: dict[str, str]) -> Any:
        connection = chdb.connect(self.owner.engine)  # type: ignore[no-untyped-call]
        try:
            if database := params.get("database"):
                connection.query(f"USE `{database}`")
            settings = {
                name: value
                for name, value in params.items()
                if name not in _TRANSPORT and not name.startswith("param_")
            }
            for name in sorted(settings, key=lambda name: name == "readonly"):
                escaped = settings[name].replace("\\", "\\\\").replace("'", "\\'")
                connection.query(f"SET {name} = '{escaped}'")
        except BaseException:
            connection.close()
            raise
        return connection

    def _insert(self, statement: bytes, fmt: str, body: bytes, params: dict[str, str]) -> None:
        fault = self.owner.take_fault()
        self.owner.seen.inserts += 1
        self.owner.seen.settings.append(params)
        if fault and fault.kind == "error":
            self._fail(f"Code: {fault.code}. DB::Exception: planted. (PLANTED_ERROR) (version 0)")
            return
        if fault and fault.kind == "cut_before_commit":
            self._cut()
            return
        try:
            connection = self._connection(params)
            try:
                with tempfile.NamedTemporaryFile() as file:
                    file.write(body)
                    file.flush()
                    source = f" FROM INFILE '{file.name}' FORMAT {fmt}"
                    result = connection.query(_FORMAT.sub(b"", statement).decode() + source)
            finally:
                connection.close()
        except Exception as error:
            self._fail(str(error))
            return
        if fault and fault.kind == "cut_after_commit":
            self._cut()
            return
        if fault and fault.kind == "stall_after_commit":
            time.sleep(fault.seconds)
        self._answer(b"", {"written_rows": str(result.rows_read()), "written_bytes": str(result.bytes_read())})

    def _query(self, statement: bytes, params: dict[str, str]) -> None:
        values = {name[6:]: value for name, value in params.items() if name.startswith("param_")}
        try:
            connection = self._connection(params)
            try:
                result = connection.query(
                    statement.decode(), params.get("default_format", "TabSeparated"), params=values
                )
                answer = result.bytes() or b""
                summary = {"read_rows": str(result.rows_read()), "read_bytes": str(result.bytes_read())}
            finally:
                connection.close()
        except Exception as error:
            self._fail(str(error))
            return
        self._answer(answer, summary)

    def _fail(self, text: str) -> None:
        start = max(0, text.find("Code: "))
        code = _CODE.search(text)
        payload = text[start:].encode()
        self.send_response(500)
        self.send_header("X-ClickHouse-Exception-Code", code.group(1) if code else "1")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _answer(self, payload: bytes, summary: dict[str, str]) -> None:
        zipped = "gzip" in self.headers.get("Accept-Encoding", "") and bool(payload)
        payload = gzip.compress(payload, 1) if zipped else payload
        self.send_response(200)
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("X-ClickHouse-Summary", json.dumps(summary))
        self.send_header("X-ClickHouse-Format", "Native")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)


def _form(kind: str, body: bytes) -> dict[str, str]:
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)]
    return {str(part.get_param("name", header="content-disposition")): _text(part) for part in parts}


def _text(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode() if isinstance(payload, bytes) else ""
