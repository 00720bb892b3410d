"""Recorded export requests: protobuf messages, each behind its length as a varint; `.gz` compressed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"


def write(path: Path, bodies: Iterable[bytes]) -> int:
    """Returns the bytes written."""
    data = b"".join(_varint(len(body)) + body for body in bodies)
    return path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read(path: Path) -> list[bytes]:
    data, at, bodies = path.read_bytes(), 0, []
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    while at < len(data):
        length = shift = 0
        while True:
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        bodies.append(data[at : at + length])
        at += length
    return bodies


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
