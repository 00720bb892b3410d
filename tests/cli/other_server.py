"""Something that listens where a Spanwise server was meant, and answers as it is told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import trustme

from tests.http_server import serving


@dataclass
class OtherServer:
    url: str = ""
    status: int = 200
    type: str = "text/html"
    body: bytes = b"<html>Welcome</html>"
    asked: list[str] = field(default_factory=list)


def untrusted() -> ssl.SSLContext:
    """A certificate of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@contextmanager
def other_server(tls: ssl.SSLContext | None = None) -> Iterator[OtherServer]:
    state = OtherServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append(self.path)
            self.send_response(state.status)
            self.send_header("Content-Type", state.type)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        do_POST = do_GET  # noqa: N815 - the library calls it so

    with serving(Handler, tls) as state.url:
        yield state
