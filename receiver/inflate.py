"""Bounded gzip: never more than one step of output at a time, however small the input that made it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

STEP_BYTES: Final = 64 << 10
MEMBERS_MAX: Final = 1000
"""RFC 1952 allows any number of members; each costs a decompressor, and twenty bytes are enough for one."""


class Gunzip:
    """Inflates a gzip stream of one or more members. Raises ValueError where the stream is damaged or cut short."""

    def __init__(self) -> None:
        self._inflate = _decompressor()
        self._members = 1
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Output of `data`, at most `STEP_BYTES` a step. Stop iterating to stop inflating."""
        self._started = self._started or bool(data)
        while True:
            if self._inflate.eof:
                if not data:
                    return
                if self._members == MEMBERS_MAX:
                    raise ValueError(f"gzip body has more than {MEMBERS_MAX} members")
                self._inflate = _decompressor()
                self._members += 1
            try:
                output = self._inflate.decompress(data, STEP_BYTES)
            except zlib.error:
                raise ValueError("gzip body is damaged") from None
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if output:
                yield output
            # output that a full step left inside comes with the next data: eight bytes of trailer are still to be read
            if not data:
                return

    def finish(self) -> None:
        if self._started and not self._inflate.eof:
            raise ValueError("gzip body ends too early")


def _decompressor() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)
