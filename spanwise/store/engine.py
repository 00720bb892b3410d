"""One question to the embedded engine on a connection of its own, answered as a stream in any format.

The driver that everything else uses answers most formats whole, in memory, and keeps its settings for good once it is
read-only. A connection costs a millisecond, so a question gets its own: its settings are set, then `readonly = 1`, and
nothing of it is left for the next one. The engine writes the answer into a pipe, as it would write `INTO OUTFILE`: so
every format comes in pieces, the reader's pace is the writer's, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from spanwise.store.connect import Store
from spanwise.store.errors import QueryError, StoreError

_PIECE_BYTES: Final = 256 << 10
_QUERY_BYTES_MAX: Final = 16 << 20
"""For the engine, which stops at 256 KiB by itself: how long a question may be is for whoever takes it to say."""
_PIPE_BYTES: Final = 1 << 20
_DESCRIPTORS: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_OUTFILE: Final = re.compile(r"\s*INTO OUTFILE '[^']*' TRUNCATE")
_EXCEPTION: Final = re.compile(r"Code: (\d+)\. DB::Exception: ")
_NAME: Final = re.compile(r"\.?\s*\(([A-Z][A-Z0-9_]{2,})\)(?:\s*\(version [^()]*(?:\([^()]*\))?\))?\.?\s*$")
_CHECKING: Final = ": In scope SELECT formatQuerySingleLine("
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})
_MESSAGE_CHARACTERS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Summary:
    """What a question cost."""

    read_rows: int = 0
    read_bytes: int = 0
    elapsed_s: float = 0.0


class EngineConnection:
    """A connection to the embedded engine for one question. One thread uses it; `cancel` may come from any other."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises StoreError if the engine cannot be reached.

        `name` is what `cancel` finds the question by: no two open connections may have the same.
        """
        self._source = f"{store.place}?{urlencode(store.engine_options)}"
        self._name = name
        self._connection = _connect(self._source)
        self._connection.query(f"SET max_query_size = {_QUERY_BYTES_MAX}")

    def read(self, statement: str, parameters: Mapping[str, Any], format_: str) -> bytes:
        """The whole answer to a statement of the program itself. Raises QueryError."""
        values = {name: str(value).translate(_ESCAPES) for name, value in parameters.items()}
        try:
            answer: bytes = self._connection.query(statement, format_, params=values).bytes() or b""
        except RuntimeError as error:
            raise explained(error) from None
        return answer

    def stream(
        self, statement: str, parameters: Mapping[str, str], format_: str, *, database: str, settings: Mapping[str, str]
    ) -> EngineStream:
        """Begin to answer a user's statement that has neither FORMAT nor INTO OUTFILE, and was checked.

        `parameters` are written as ClickHouse clients write them: as in TabSeparated, `\\N` for NULL. Raises QueryError
        if there is no such database or a setting cannot be set so. The connection is read-only from here on.
        """
        # last: nothing can be set after it
        changes = {**settings, "log_comment": self._name, "readonly": "1"}
        try:
            self._connection.query(f"USE `{database}`")
            self._connection.query("SET " + ", ".join(f"{key} = {_literal(value)}" for key, value in changes.items()))
        except RuntimeError as error:
            raise explained(error) from None
        return EngineStream(self._connection, statement, parameters, format_)

    def cancel(self) -> None:
        """Stop what runs on this connection, soon. It then fails with QUERY_WAS_CANCELLED."""
        with contextlib.suppress(RuntimeError), contextlib.closing(_connect(self._source)) as other:
            other.query(f"KILL QUERY WHERE Settings['log_comment'] = {_literal(self._name)} ASYNC")

    def close(self) -> None:
        self._connection.close()


class EngineStream:
    """The bytes of one answer, as the engine makes them. `read` blocks; the engine waits while nobody reads."""

    def __init__(self, connection: Any, statement: str, parameters: Mapping[str, str], format_: str) -> None:
        self._connection = connection
        self._source, self._sink = _pipe()
        self._statement = f"{statement}\nINTO OUTFILE '{_DESCRIPTORS}/{self._sink}' TRUNCATE FORMAT {format_}"
        self._parameters = dict(parameters)
        self._error: Exception | None = None
        self._closed = False
        self.summary = Summary()
        """Known when `read` has returned nothing."""
        self._thread = threading.Thread(target=self._run, name="spanwise-engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result = self._connection.query(self._statement, params=self._parameters)
            self.summary = Summary(result.rows_read(), result.bytes_read(), result.elapsed())
        except RuntimeError as error:
            self._error = explained(error)
        finally:
            os.close(self._sink)

    def read(self) -> bytes:
        """The next piece, nothing at the end. Raises QueryError or StoreError, perhaps after some pieces."""
        if piece := os.read(self._source, _PIECE_BYTES):
            return piece
        self._thread.join()
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Let go of what has not been read, and wait for the engine. Whoever stops early calls `cancel` before."""
        if not self._closed:
            self._closed = True
            # the engine goes on into the void, so that nothing of it waits for a reader
            os.close(self._source)
            self._thread.join()


def explained(error: Exception) -> QueryError | StoreError:
    """An exception of the engine in parts: code, message, name."""
    text = _OUTFILE.sub("", str(error))
    codes = _EXCEPTION.findall(text)
    text = _EXCEPTION.sub("", text)
    name = ""
    while found := _NAME.search(text):
        name = name or found.group(1)
        text = text[: found.start()]
    text = text.split(_CHECKING, 1)[0][:_MESSAGE_CHARACTERS]
    if not codes:
        return StoreError("the embedded engine does not answer")
    return QueryError(text, code=int(codes[0]), name=name)


def _connect(source: str) -> Any:
    import chdb  # noqa: PLC0415 - there is none where the store is a server

    try:
        return chdb.connect(source)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise explained(error) from None


def _pipe() -> tuple[int, int]:
    source, sink = os.pipe()
    if sys.platform == "linux":
        import fcntl  # noqa: PLC0415

        # fewer turns between the engine and the reader; the system may allow less
        with contextlib.suppress(OSError):
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return source, sink


def _literal(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
