"""The commands' side of the HTTP API."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import urllib3

from spanwise.reach import trouble

WEB_DEFAULT: Final = "http://127.0.0.1:8080"
OTLP_DEFAULT: Final = "http://127.0.0.1:4318"
_CONNECT_TIMEOUT_S: Final = 5.0
_READ_TIMEOUT_S: Final = 3600.0
_HEALTH_TIMEOUT_S: Final = 3.0
_PIECE: Final = 1 << 18
_ELSEWHERE: Final = "say where it is with --web URL or SPANWISE_WEB"
_SQL_TYPES: Final = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "table": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


class CommandError(Exception):
    """A command cannot do its work: one sentence, and the next step."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
        """Of the server's answer, 0 where there was none."""


class Client:
    """Talks to one server. `token` is a bearer token, '' for none."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = server_url(url, WEB_DEFAULT)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = urllib3.PoolManager(retries=False)

    @classmethod
    def from_environment(cls, url: str | None) -> Client:
        return cls(url or os.environ.get("SPANWISE_WEB") or WEB_DEFAULT, os.environ.get("SPANWISE_TOKEN", ""))

    def get(self, path: str, member: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON answer, an object with that member; numbers with a fraction are exact."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        query = urlencode(given, errors="surrogateescape")
        return self._object("GET", f"{path}?{query}" if query else path, member)

    def alive(self) -> None:
        """Raises CommandError if the server does not answer."""
        self._object("GET", "/healthz", "status", timeout_s=_HEALTH_TIMEOUT_S)

    def not_ready(self) -> dict[str, str]:
        """Why the server would take nothing now, by part; empty when it would. Raises CommandError if none answers."""
        told = self._object("GET", "/readyz", "status", or_status=503, timeout_s=_HEALTH_TIMEOUT_S)
        reasons = told.get("reasons", {})
        return {str(part): str(reason) for part, reason in reasons.items()}

    def sql(self, statement: str, format_: str) -> Iterator[bytes]:
        """The answer piece by piece. Raises CommandError if it is cut short."""
        body = statement.encode("utf-8", "surrogateescape")
        with self._answer("POST", f"/api/v1/sql?format={format_}", body) as answer:
            if not answer.headers.get("Content-Type", "").startswith(_SQL_TYPES[format_]):
                raise _stranger(self.url, answer.status)
            yield from answer.stream(_PIECE)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        lines = b"".join(self.sql(statement, "jsonl")).splitlines()
        return [json.loads(line, parse_float=Decimal) for line in lines if line]

    def metric(self, name: str) -> float | None:
        """A metric without labels, None if the server has none of that name."""
        with self._answer("GET", "/metrics") as answer:
            for line in answer.read().decode("utf-8").splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rsplit(" ", 1)[1])
        return None

    def _object(
        self, method: str, path: str, member: str, *, or_status: int = 200, timeout_s: float = _READ_TIMEOUT_S
    ) -> dict[str, Any]:
        with self._answer(method, path, or_status=or_status, timeout_s=timeout_s) as answer:
            try:
                told = json.loads(answer.read(), parse_float=Decimal)
            except ValueError:
                told = None
            if not isinstance(told, dict) or member not in told:
                raise _stranger(self.url, answer.status)
            return told

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        or_status: int = 200,
        timeout_s: float = _READ_TIMEOUT_S,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        try:
            answer = self._http.request(
                method,
                self.url + path,
                body=body,
                headers=self._headers,
                preload_content=False,
                timeout=urllib3.Timeout(connect=min(timeout_s, _CONNECT_TIMEOUT_S), read=timeout_s),
            )
            try:
                if answer.status not in (200, or_status):
                    raise _refusal(self.url, answer)
                yield answer
            finally:
                answer.release_conn() if answer.closed else answer.close()
        except urllib3.exceptions.ProtocolError as error:
            raise CommandError(
                f"the answer of {self.url} was cut short",
                "the query ran into a limit or the server stopped: narrow the query, see the server's log",
            ) from error
        except urllib3.exceptions.HTTPError as error:
            what, hint = trouble(self.url, error)
            raise CommandError(what, hint or f"start one with `spanwise up`, or {_ELSEWHERE}") from error


def server_url(url: str, example: str) -> str:
    """An address as a user writes it, with http:// where it has no scheme and without a last slash."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    except ValueError:  # a port that is no number, or half an IPv6 address
        pass
    raise CommandError(f"{url} is not the address of a server", f"write it like {example}")


def _stranger(url: str, status: int) -> CommandError:
    return CommandError(f"{url} answered {status} and is no Spanwise server", _ELSEWHERE)


def _refusal(url: str, answer: urllib3.BaseHTTPResponse) -> CommandError:
    try:
        told = json.loads(answer.read(1 << 20))["error"]
        message, hint = str(told["message"]), str(told["hint"])
    except (ValueError, KeyError, TypeError):
        return _stranger(url, answer.status)
    if answer.status == 401:
        hint = "set SPANWISE_TOKEN to one of the server's `web.tokens`"
    return CommandError(message, hint, status=answer.status)
