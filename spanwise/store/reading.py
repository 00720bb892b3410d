"""Answers of the store as bytes, for users' queries: bounded, read-only, streamed where the format allows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, cast

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as DriverError

from spanwise.store.connect import Store
from spanwise.store.errors import QueryError, StoreError, code_of

_PIECE_BYTES: Final = 256 << 10
_STREAMED: Final = frozenset({"JSONEachRow", "CSV"})
"""Formats whose blocks can be concatenated; others are answered whole, within the reader's limits."""
_SERVERS_FAULT: Final = frozenset({0, 202, 209, 210, 242, 252, 999})
_NOISE: Final = re.compile(r"^Code: \d+\. DB::Exception: |^default: |\s*\(version [^)]*\).*$", re.DOTALL)


def read(store: Store, sql: str, params: Mapping[str, Any], format_: str) -> bytes:
    """The whole answer. Raises QueryError, StoreError or OverloadedError."""
    return b"".join(stream(store, sql, params, format_))


def stream(store: Store, sql: str, params: Mapping[str, Any], format_: str) -> Iterator[bytes]:
    """The answer in pieces; holds a reader until it is exhausted or closed.

    Raises QueryError if the question is wrong or too big, StoreError if the store does not answer, OverloadedError if
    no reader is free.
    """
    with store.reader() as client:
        try:
            yield from _pieces(client, sql, params, format_)
        except DriverError as error:
            raise _explained(store, error) from None


def _pieces(client: Client, sql: str, params: Mapping[str, Any], format_: str) -> Iterator[bytes]:
    if format_ not in _STREAMED:
        yield client.raw_query(sql, parameters=dict(params), fmt=format_)
        return
    source = cast("IO[bytes]", client.raw_stream(sql, parameters=dict(params), fmt=format_))
    try:
        while piece := source.read(_PIECE_BYTES):
            yield piece
    finally:
        source.close()


def _explained(store: Store, error: DriverError) -> Exception:
    code, name = code_of(error)
    text = " ".join(_NOISE.sub("", str(error)).split())[:500]
    if code in _SERVERS_FAULT:
        return StoreError(f"cannot read from {store.place}", code=code, name=name)
    return QueryError(text or f"the store refused the query (code {code})", code=code, name=name)
