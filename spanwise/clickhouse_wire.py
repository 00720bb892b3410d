"""From the engine's bytes to those that a ClickHouse client wants on the wire."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import cramjam

from spanwise._native import NativeBlocks, compressed_frames
from spanwise.store import QueryError


class Outlet:
    """One answer on its way out: the client's Native format, its compression, HTTP's."""

    def __init__(self, *, revision: int = 0, frames: bool = False, encoding: str = "") -> None:
        """`revision` is that of the client's protocol, and 0 for what is not in Native format; `frames` asks for
        ClickHouse's own compression, `encoding` for one of HTTP, '' for none.
        """
        self._blocks = NativeBlocks(revision) if revision else None
        self._frames = frames
        self._encoder = _ENCODERS[encoding]()

    def feed(self, piece: bytes) -> bytes:
        """Perhaps nothing: what is held back comes later. Raises QueryError where a type cannot be sent."""
        return self._encoder.feed(self._packed(piece))

    def next_of(self, read: Callable[[], bytes]) -> bytes:
        """The next bytes for the wire; nothing when everything has been read."""
        while piece := read():
            if ready := self.feed(piece):
                return ready
        return b""

    def finish(self) -> bytes:
        return self._encoder.feed(self._packed(None)) + self._encoder.finish()

    def broken_off(self, block: bytes) -> bytes:
        """The end of an answer that has none. A server writes it past its own compression, inside that of HTTP."""
        return self._encoder.feed(block) + self._encoder.finish()

    def _packed(self, piece: bytes | None) -> bytes:
        """None stands for the end."""
        if self._blocks is not None:
            try:
                piece = self._blocks.finish() if piece is None else self._blocks.feed(piece)
            except ValueError as error:
                raise QueryError(str(error), code=48, name="NOT_IMPLEMENTED") from None
        return compressed_frames(piece or b"") if self._frames else piece or b""


class _Encoder(Protocol):
    def feed(self, piece: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Identity:
    def feed(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> bytes:
        return b""


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        # the lowest level: what is asked over a network is bound by the machine, not by the wire
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, window_bits)

    def feed(self, piece: bytes) -> bytes:
        return self._compressor.compress(piece)

    def finish(self) -> bytes:
        return self._compressor.flush()


class _Cramjam:
    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor

    def feed(self, piece: bytes) -> bytes:
        self._compressor.compress(piece)
        return bytes(self._compressor.flush())

    def finish(self) -> bytes:
        return bytes(self._compressor.finish())


_ENCODERS: Final[Mapping[str, Callable[[], _Encoder]]] = {
    "": _Identity,
    "zstd": lambda: _Cramjam(cramjam.zstd.Compressor(1)),
    "lz4": lambda: _Cramjam(cramjam.lz4.Compressor(1)),
    "gzip": lambda: _Zlib(31),
    "br": lambda: _Cramjam(cramjam.brotli.Compressor(1)),
    "deflate": lambda: _Zlib(15),
}
"""Best first."""


def best_encoding(accepted: str) -> str:
    """The best of the encodings a client accepts, '' for none."""
    offers = {}
    for offer in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        offers[name] = not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return next((name for name in _ENCODERS if name and offers.get(name)), "")


def exception_block(text: str, tag: str) -> bytes:
    """What clients look for in an answer that was broken off; `tag` is in a header of it too."""
    message = text.strip()
    return f"\r\n__exception__\r\n{tag}\r\n{message}\n{len(message.encode())} {tag}\r\n__exception__\r\n".encode()
