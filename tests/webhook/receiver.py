"""A receiver of webhooks on a real socket, which answers as a test says."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Got(NamedTuple):
    """One request as it came in; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


Answer = Callable[[BaseHTTPRequestHandler, Got], None]


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: Got) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


class Receiver:
    """Takes POSTs until the context ends. `answers` are used up one by one, then everything is answered with 200."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.got: list[Got] = []
        self.answers = list(answers)
        self.connections = 0
        self.released = threading.Event()
        """Set, it lets go of requests that `hang`."""
        self._server = _Server(("127.0.0.1", port), self._handler())
        self._server.counted = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                got = Got(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                receiver.got.append(got)
                answer = receiver.answers.pop(0) if receiver.answers else status(200)
                try:
                    answer(self, got)
                except OSError:  # the sender had enough
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def hang(self, handler: BaseHTTPRequestHandler, _: Got) -> None:
        """Take the message, answer never (until `released`)."""
        self.released.wait(60)
        handler.close_connection = True

    def drip(self, handler: BaseHTTPRequestHandler, _: Got) -> None:
        """A header that never ends, a byte at a time."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.released.wait(0.05):
            handler.wfile.write(b"s")
            handler.wfile.flush()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/hook"

    def wait_for(self, count: int, timeout_s: float = 60) -> list[Got]:
        deadline = time.monotonic() + timeout_s
        while len(self.got) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.got)} messages after {timeout_s} s, expected {count}")
            time.sleep(0.02)
        return self.got

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    counted: Receiver

    def get_request(self) -> Any:
        request = super().get_request()
        self.counted.connections += 1
        return request

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a sender that hangs up during the handshake
