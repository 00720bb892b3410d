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

WEB_DEFAULT: Final = "http://127.0.0.1:8080"
_CONNECT_TIMEOUT_S: Final = 5.0
_READ_TIMEOUT_S: Final = 3600.0
_HEALTH_TIMEOUT_S: Final = 3.0
_PIECE: Final = 1 << 18


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
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"{url} is not the address of a server", f"write it like {WEB_DEFAULT}")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = urllib3.PoolManager(retries=False)

    @classmethod
    def from_environment(cls, url: str | None) -> Client:
        return cls(url or os.environ.get("SPANWISE_WEB") or WEB_DEFAULT, os.environ.get("SPANWISE_TOKEN", ""))

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer; numbers with a fraction are exact."""
        query = urlencode({name: value for name, value in (parameters or {}).items() if value is not None})
        with self._answer("GET", f"{path}?{query}" if query else path) as answer:
            return json.loads(answer.read(), parse_float=Decimal)

    def alive(self) -> None:
        """Raises CommandError if the server does not answer."""
        with self._answer("GET", "/healthz", timeout_s=_HEALTH_TIMEOUT_S):
            pass

    def not_ready(self) -> dict[str, str]:
        """Why the server would take nothing now, by part; empty when it would. Raises CommandError if none answers."""
        with self._answer("GET", "/readyz", or_status=503, timeout_s=_HEALTH_TIMEOUT_S) as answer:
            reasons = json.loads(answer.read()).get("reasons", {})
            return {str(part): str(reason) for part, reason in reasons.items()}

    def sql(self, statement: str, format_: str) -> Iterator[bytes]:
        """The answer piece by piece. Raises CommandError if it is cut short."""
        with self._answer("POST", f"/api/v1/sql?format={format_}", statement.encode()) as answer:
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
            raise CommandError(
                f"no Spanwise server answers at {self.url}",
                "start one with `spanwise up`, or say where it is with --web URL or SPANWISE_WEB",
            ) from error


def _refusal(url: str, answer: urllib3.BaseHTTPResponse) -> CommandError:
    try:
        told = json.loads(answer.read(1 << 20))["error"]
        message, hint = str(told["message"]), str(told["hint"])
    except (ValueError, KeyError, TypeError):
        return CommandError(
            f"{url} answered {answer.status} and is no Spanwise server",
            "say where it is with --web URL or SPANWISE_WEB",
        )
    if answer.status == 401:
        hint = "set SPANWISE_TOKEN to one of the server's `web.tokens`"
    return CommandError(message, hint, status=answer.status)
