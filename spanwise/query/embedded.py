"""Questions in ClickHouse's own terms to the embedded engine: any format, settings from a list, cancelled on demand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from spanwise.query.guard import Guard
from spanwise.store import QueryError, Store
from spanwise.store.engine import EngineConnection, EngineStream, Summary

_TEXT: Final = "text/plain; charset=UTF-8"
_JSON: Final = "application/json; charset=UTF-8"
_LINES: Final = "application/x-ndjson; charset=UTF-8"
_TSV: Final = "text/tab-separated-values; charset=UTF-8"
_CSV: Final = "text/csv; charset=UTF-8"
_BINARY: Final = "application/octet-stream"

_CONTENT_TYPES: Final = {
    **dict.fromkeys(("Native", "RowBinary", "RowBinaryWithNames", "RowBinaryWithNamesAndTypes", "Arrow"), _BINARY),
    **dict.fromkeys(("ArrowStream", "Parquet", "ORC", "MsgPack", "RawBLOB"), _BINARY),
    **dict.fromkeys(("JSON", "JSONStrings", "JSONCompact", "JSONCompactStrings", "JSONColumns"), _JSON),
    **dict.fromkeys(("JSONCompactColumns", "JSONColumnsWithMetadata", "JSONObjectEachRow"), _JSON),
    **dict.fromkeys(("JSONEachRow", "JSONLines", "NDJSON", "JSONStringsEachRow", "JSONEachRowWithProgress"), _LINES),
    **dict.fromkeys(("JSONCompactEachRow", "JSONCompactEachRowWithNames"), _LINES),
    **dict.fromkeys(("JSONCompactEachRowWithNamesAndTypes", "JSONCompactStringsEachRow"), _LINES),
    **dict.fromkeys(("JSONCompactStringsEachRowWithNames", "JSONCompactStringsEachRowWithNamesAndTypes"), _LINES),
    **dict.fromkeys(("TabSeparated", "TabSeparatedWithNames", "TabSeparatedWithNamesAndTypes", "TSV"), _TSV),
    **dict.fromkeys(("TSVWithNames", "TSVWithNamesAndTypes", "TabSeparatedRaw", "TSVRaw", "TSKV"), _TSV),
    **dict.fromkeys(("CSV", "CSVWithNames", "CSVWithNamesAndTypes"), _CSV),
    **dict.fromkeys(("Values", "Vertical", "Markdown", "Pretty", "PrettyCompact", "PrettySpace", "Null"), _TEXT),
    **dict.fromkeys(("PrettyCompactMonoBlock", "PrettyNoEscapes", "PrettyCompactNoEscapes", "LineAsString"), _TEXT),
    "XML": "application/xml; charset=UTF-8",
}
"""The formats that are answered. Those that read or write a schema or a template of the machine are not."""
FORMATS: Final = tuple(_CONTENT_TYPES)
_FORMATS: Final = {name.lower(): name for name in FORMATS}

_FORMATTING: Final = re.compile(
    r"output_format_(json|csv|tsv|arrow|parquet|orc|pretty|native|binary|msgpack|markdown|values|sql_insert)_\w+"
    r"|output_format_(decimal_trailing_zeros|write_statistics|float_precision|trim_fixed_string)"
    r"|format_csv_\w+|format_tsv_null_representation|date_time_output_format"
)
_MEANING: Final = frozenset(
    {"final", "extremes", "join_use_nulls", "group_by_use_nulls", "union_default_mode", "session_timezone"}
    | {"limit", "offset", "count_distinct_implementation", "prefer_column_name_to_alias"}
    | {"max_rows_to_read", "max_bytes_to_read", "read_overflow_mode", "max_block_size", "result_overflow_mode"}
    | {"max_rows_to_group_by", "group_by_overflow_mode", "timeout_overflow_mode", "use_uncompressed_cache"}
    | {"optimize_aggregation_in_order", "optimize_read_in_order", "low_cardinality_allow_in_native_format"}
    | {"date_time_overflow_behavior", "enable_analyzer", "allow_experimental_analyzer"}
)
"""Settings of ClickHouse that are passed on: they say what is asked for, and reach nothing beyond the answer."""
_NUMBER: Final = re.compile(r"\d{1,18}(\.\d+)?")
_DATABASE: Final = re.compile(r"\w{1,64}")


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """The most one question may take. A question may ask for less."""

    seconds: int
    memory_bytes: int
    rows: int
    bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Question:
    """What a client of ClickHouse asks, in its own words."""

    statement: str
    name: str
    """The query id: no two questions that run at once may have the same."""
    format: str = "TabSeparated"
    """If the statement has no FORMAT."""
    database: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values escaped as in TabSeparated, `\\N` for NULL."""
    settings: Mapping[str, str] = field(default_factory=dict)


class Answer:
    """The bytes of one answer. Close it; whoever stops before the end calls `cancel` first, from any thread."""

    def __init__(self, connection: EngineConnection, stream: EngineStream, format_: str, bytes_max: int) -> None:
        self._connection = connection
        self._stream = stream
        self._bytes_left = bytes_max
        self.format = format_
        self.content_type = _CONTENT_TYPES[format_]

    @property
    def summary(self) -> Summary:
        """Known once `read` has returned nothing."""
        return self._stream.summary

    def read(self) -> bytes:
        """The next piece, nothing at the end. Blocks. Raises QueryError or StoreError, perhaps after some pieces."""
        piece = self._stream.read()
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            # the engine counts columns, and a column of one value over and over is small to it
            raise QueryError("Limit for result exceeded: too many bytes", code=396, name="TOO_MANY_ROWS_OR_BYTES")
        return piece

    def cancel(self) -> None:
        self._connection.cancel()

    def close(self) -> None:
        self._stream.close()
        self._connection.close()


class EmbeddedQueries:
    """Answers questions to one embedded store. Blocks, and may be called from several threads at once."""

    def __init__(self, store: Store, limits: QueryLimits) -> None:
        """Raises StoreError if the store does not answer."""
        self._store = store
        self._limits = limits
        self._guard = Guard(embedded=True)
        connection = EngineConnection(store, "spanwise-server")
        try:
            told = connection.read("SELECT version(), timezone()", {}, "TabSeparated").decode().split()
        finally:
            connection.close()
        self.version, self.timezone = told

    def ask(self, question: Question) -> Answer:
        """Check the question and begin to answer it. Raises QueryError or StoreError."""
        connection = EngineConnection(self._store, question.name)
        try:
            checked = self._guard.checked(question.statement, connection.read)
            settings = chosen_settings({**question.settings, **checked.settings}, self._limits)
            format_ = _format(checked.format or question.format)
            values = {name: text for name, text in question.parameters.items() if name in checked.parameters}
            database = self._database(question.database)
            stream = connection.stream(checked.statement, values, format_, database=database, settings=settings)
            return Answer(connection, stream, format_, self._limits.bytes)
        except BaseException:
            connection.close()
            raise

    def _database(self, asked: str) -> str:
        """Clients that were told nothing ask for `default`, which the embedded engine has for the machine's files."""
        if asked in {"", "default"}:
            return self._store.database
        if not _DATABASE.fullmatch(asked):
            raise QueryError("Database does not exist", code=81, name="UNKNOWN_DATABASE")
        return asked


def chosen_settings(asked: Mapping[str, str], limits: QueryLimits) -> dict[str, str]:
    """The settings a question runs with: what it asks for from the list, never more than the limits.

    Raises QueryError as a server does whose user is read-only.
    """
    bounds = {
        "max_execution_time": limits.seconds,
        "max_memory_usage": limits.memory_bytes,
        "max_result_rows": limits.rows,
        "max_result_bytes": limits.bytes,
        "max_threads": limits.threads,
    }
    chosen = {name: str(bound) for name, bound in bounds.items()}
    for name, value in asked.items():
        if name in bounds:
            chosen[name] = str(_bounded(name, value, bounds[name]))
        elif name in _MEANING or _FORMATTING.fullmatch(name):
            chosen[name] = value
        elif (name, value) != ("readonly", "1"):
            raise QueryError(f"Cannot modify '{name}' setting in readonly mode", code=164, name="READONLY")
    return chosen


def _bounded(name: str, value: str, bound: int) -> float:
    if not _NUMBER.fullmatch(value):
        raise QueryError(f"Cannot parse the value of setting '{name}'", code=72, name="CANNOT_PARSE_NUMBER")
    # zero stands for no limit at all
    number = float(value) if name == "max_execution_time" else int(float(value))
    return min(number, bound) if number > 0 else bound


def _format(asked: str) -> str:
    known = _FORMATS.get(asked.lower())
    if known is None:
        raise QueryError(f"Unknown format {asked}", code=73, name="UNKNOWN_FORMAT")
    return known
