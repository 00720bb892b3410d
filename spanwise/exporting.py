"""Spans, content, log records, summaries and findings as files: Parquet, or OTLP JSON lines that can be imported again.

Everything is asked through the SQL of the HTTP API, in pages that stay within its limits, so an export takes no more
memory than a page and holds up nothing that is being stored. A file is one UTC day of one table; it gets its name when
it is whole, and an export that was interrupted leaves out the files it has.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import functools
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from spanwise.model import CONTENT, FINDINGS, LOG_EVENTS, SPANS, TRACES, Table
from spanwise.store import load_sql
from spanwise.store.ttl import literal

Ask: TypeAlias = Callable[[str, str], Iterable[bytes]]
"""Runs one SELECT and gives the answer in pieces, in a format of the HTTP API."""

_PAGE_ROWS: Final = 5_000
_PAGE_BYTES: Final = 16 << 20
"""Of big values a page refers to; a single value may be larger."""
_LINE_SPANS: Final = 200
_LINE_BYTES: Final = 2 << 20
_MINUTE_NS: Final = 60 * 10**9
NS_MAX: Final = 2**63 - 1
_GZIP_LEVEL: Final = 3
_MANIFEST: Final = "spanwise-export.json"
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES: Final = ("unset", "ok", "error")
_SEVERITIES: Final = ("high", "critical")
_TIMES: Final = {"spans": "start_time", "log_events": "time", "traces": "start_time", "findings": "started_at"}
_PLACE: Final = re.compile(r"(attributes|resource|scope)\.(.*)|(events|links)\[(\d+)\]\.(.*)", re.DOTALL)


class ExportError(Exception):
    """The export cannot be made as asked; one sentence with what to do."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which traces, and which of their spans. Empty fields do not choose; times are nanoseconds since the epoch."""

    start_ns: int = 0
    """Spans that started then or later."""
    end_ns: int = NS_MAX
    """Spans that started before."""
    tenant: str = ""
    trace: str = ""
    service: str = ""
    """Traces with a span of this service, whole."""
    agent: str = ""
    failed: bool = False
    """Traces with a finding of severity high or critical."""

    def where(self, table: str) -> str:
        """The condition on the rows of a table."""
        if table == "content":
            # some values belong to log records that no trace was found for
            return _in_traces("spans", self.where("spans")) if self != Selection() else "1"
        parts = [f"tenant = {literal(self.tenant)}"] if self.tenant else []
        parts += [f"trace_id = {literal(self.trace)}"] if self.trace else []
        if self.start_ns:
            parts.append(f"{_TIMES[table]} >= fromUnixTimestamp64Nano({self.start_ns})")
        if self.end_ns < NS_MAX:
            parts.append(f"{_TIMES[table]} < fromUnixTimestamp64Nano({self.end_ns})")
        of_traces = self._of_traces()
        if of_traces and table == "traces":
            parts += of_traces
        elif of_traces:
            chosen = " AND ".join([*([f"tenant = {literal(self.tenant)}"] if self.tenant else []), *of_traces])
            parts.append(_in_traces("traces FINAL", chosen))
        return " AND ".join(parts) or "1"

    def _of_traces(self) -> list[str]:
        parts = [f"has(services, {literal(self.service)})"] if self.service else []
        parts += [f"has(agents, {literal(self.agent)})"] if self.agent else []
        severities = ", ".join(map(literal, _SEVERITIES))
        return parts + ([f"finding_severity IN ({severities})"] if self.failed else [])

    @property
    def days(self) -> tuple[str, str]:
        """First and last day as SQL. What happened on a day may be stored under a later one if its clock was wrong."""
        first = dt.datetime.fromtimestamp(self.start_ns // 10**9, dt.UTC).date()
        last = dt.datetime.fromtimestamp(min(self.end_ns // 10**9, 4_102_444_800), dt.UTC).date()
        return f"toDate({literal(first)})", f"toDate({literal(last)})"


def _in_traces(table: str, where: str) -> str:
    return f"(tenant, trace_id) IN (SELECT tenant, trace_id FROM {table} WHERE {where})"  # noqa: S608 - values are quoted


@dataclass(slots=True)
class ExportReport:
    """What an export wrote in this run."""

    rows: dict[str, int] = field(default_factory=dict)
    """By table; spans and log_events in OTLP."""
    files: list[Path] = field(default_factory=list)
    there: int = 0
    """Files that an earlier run had finished."""
    values_missing: int = 0
    """Big values that are not stored any more; the first 200 characters stand for them."""


Progress: TypeAlias = Callable[[str, str, int], None]
"""Told the table, the day, and the rows written of it."""


@dataclass(frozen=True, slots=True)
class _Page:
    day: str
    low: int = 0
    """First and last minute since the epoch."""
    high: int = 0
    part: int = 0
    parts: int = 1

    def where(self, table: Table) -> str:
        time = _TIMES.get(table.name)
        found = []
        if time is not None:
            last_ns = min(self.high * _MINUTE_NS + _MINUTE_NS - 1, NS_MAX)
            low = f"fromUnixTimestamp64Nano({self.low * _MINUTE_NS})"
            found.append(f"{time} BETWEEN {low} AND fromUnixTimestamp64Nano({last_ns})")
        if self.parts > 1:
            identity = ", ".join(column for column in table.order_by if column in table.names)
            found.append(f"cityHash64({identity}) % {self.parts} = {self.part}")
        return " AND ".join(found) or "1"


class Exporter:
    """Writes what is chosen. Raises ExportError, OSError, and whatever `ask` raises."""

    def __init__(self, ask: Ask, chosen: Selection, progress: Progress) -> None:
        self._ask = ask
        self._chosen = chosen
        self._progress = progress
        self.report = ExportReport()

    # Parquet

    def parquet(self, folder: Path) -> ExportReport:
        """`<table>-<day>.parquet` for every table and day, with the columns of the table reference."""
        for table in (SPANS, CONTENT, LOG_EVENTS, TRACES, FINDINGS):
            for day in self._days(table):
                path = folder / f"{table.name}-{day}.parquet"
                if not self._there(path):
                    self._parquet_file(table, day, path)
        return self.report

    def _parquet_file(self, table: Table, day: str, path: Path) -> None:
        columns = ", ".join(table.names)
        writer: pq.ParquetWriter | None = None
        schema: pa.Schema | None = None
        partial = path.with_name(f"{path.name}.part")
        try:
            for page in self._pages(table, day):
                answer = b"".join(self._ask(self._sql("export_rows", table, page, columns=columns), "parquet"))
                rows = pq.read_table(pa.BufferReader(answer)) if answer else None
                if rows is None or not rows.num_rows:
                    continue
                schema = schema or rows.schema
                writer = writer or pq.ParquetWriter(partial, schema, compression="zstd")
                writer.write_table(rows.cast(schema))
                self._count(table, day, rows.num_rows)
            if writer is not None:
                writer.close()
                self._finish(partial, path)
        finally:
            if writer is not None:
                writer.close()
            partial.unlink(missing_ok=True)

    # OTLP JSON lines

    def otlp(self, folder: Path) -> ExportReport:
        """`spans-<day>.jsonl.gz` and `logs-<day>.jsonl.gz`: an OTLP export request a line."""
        self._one_tenant()
        for table, name, lines in ((SPANS, "spans", self._span_lines), (LOG_EVENTS, "logs", self._log_lines)):
            for day in self._days(table):
                path = folder / f"{name}-{day}.jsonl.gz"
                if self._there(path):
                    continue
                partial = path.with_name(f"{path.name}.part")
                try:
                    rows = self.report.rows.get(table.name, 0)
                    with gzip.open(partial, "wb", compresslevel=_GZIP_LEVEL) as file:
                        file.writelines(lines(day))
                    if self.report.rows.get(table.name, 0) > rows:
                        self._finish(partial, path)
                finally:
                    partial.unlink(missing_ok=True)
        return self.report

    def otlp_stream(self, out: IO[bytes]) -> ExportReport:
        """The same as plain lines, spans before log records."""
        self._one_tenant()
        for table, lines in ((SPANS, self._span_lines), (LOG_EVENTS, self._log_lines)):
            for day in self._days(table):
                out.writelines(lines(day))
        out.flush()
        return self.report

    def _one_tenant(self) -> None:
        """OTLP does not say whose a span is: what is imported again belongs to whoever imports it."""
        if self._chosen.tenant:
            return
        found = [
            row["tenant"]
            for table in ("spans", "log_events")
            for row in self._rows(
                load_sql("spanwise", "export_tenants")
                .replace("{table}", table)
                .replace("{chosen}", self._chosen.where(table))
            )
        ]
        if len(names := sorted(set(found))) > 1:
            raise ExportError(f"there are several tenants, and OTLP cannot tell them apart: choose one of {names}")

    def _span_lines(self, day: str) -> Iterator[bytes]:
        for page in self._pages(SPANS, day):
            rows = self._rows(self._sql("export_spans", SPANS, page))
            values: dict[tuple[str, str], str] = {}
            if any(row["reference_lists"] for row in rows):
                found = self._rows(self._sql("export_values", SPANS, page))
                values = {(row["trace_id"], row["hash"]): row["value"] for row in found}
            yield from self._lines(rows, functools.partial(self._span, values=values), _SPAN_WORDS)
            self._count(SPANS, day, len(rows))

    def _log_lines(self, day: str) -> Iterator[bytes]:
        for page in self._pages(LOG_EVENTS, day):
            rows = self._rows(self._sql("export_logs", LOG_EVENTS, page))
            yield from self._lines(rows, self._record, _LOG_WORDS)
            self._count(LOG_EVENTS, day, len(rows))

    def _lines(
        self, rows: Iterable[dict[str, Any]], make: Callable[[dict[str, Any]], _Item], words: tuple[str, str, str]
    ) -> Iterator[bytes]:
        """Requests of bounded size; neighbours with one resource and scope stand together in them."""
        resources, scopes, items = words
        groups: dict[bytes, dict[bytes, tuple[dict[str, Any], list[Any]]]] = {}
        count = size = 0

        def request() -> bytes:
            told = [
                {
                    "resource": orjson.Fragment(resource),
                    scopes: [{**head, items: each} for head, each in inner.values()],
                }
                for resource, inner in groups.items()
            ]
            return orjson.dumps({resources: told}, option=orjson.OPT_APPEND_NEWLINE)

        for row in rows:
            item = make(row)
            text = orjson.dumps(item.body)
            inner = groups.setdefault(orjson.dumps(item.resource), {})
            _, its = inner.setdefault(orjson.dumps(item.scope), (item.scope, []))
            its.append(orjson.Fragment(text))
            count, size = count + 1, size + len(text)
            if count >= _LINE_SPANS or size >= _LINE_BYTES:
                yield request()
                groups, count, size = {}, 0, 0
        if groups:
            yield request()

    def _span(self, row: dict[str, Any], values: dict[tuple[str, str], str]) -> _Item:
        whole = self._whole(row, values)
        start, duration = int(row["start_unix_nano"]), int(row["duration"])
        attributes, derived = _attributes(row["attribute_lists"], whole, "attributes")
        start = int(derived.get("spanwise.start_time_unix_nano", start))
        body: dict[str, Any] = {
            "traceId": row["trace_id"],
            "spanId": row["span_id"],
            "name": row["name"],
            "kind": _KINDS.index(row["kind_name"]),
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": derived.get("spanwise.end_time_unix_nano", str(start + duration)),
            "status": {"code": _STATUSES.index(row["status_name"])},
            "attributes": attributes,
        }
        if row["status_message"]:
            body["status"]["message"] = row["status_message"]
        for key, name in _OPTIONAL:
            if row[name]:
                body[key] = row[name]
        if row["event_lists"]:
            body["events"] = [
                {"timeUnixNano": time, "name": name, "attributes": _attributes(lists, whole, f"events[{index}]")[0]}
                for index, (time, name, lists) in enumerate(row["event_lists"])
            ]
        if row["link_lists"]:
            body["links"] = [
                {
                    "traceId": trace_id,
                    "spanId": span_id,
                    "traceState": state,
                    "attributes": _attributes(lists, whole, f"links[{index}]")[0],
                }
                for index, (trace_id, span_id, state, lists) in enumerate(row["link_lists"])
            ]
        scope: dict[str, Any] = {"name": row["scope"], "version": row["scope_version"]}
        if row["scope_lists"][0]:
            scope["attributes"] = _attributes(row["scope_lists"], whole, "scope")[0]
        head = {"scope": scope, "schemaUrl": row["schema_url"]}
        return _Item(body, {"attributes": _attributes(row["resource_lists"], whole, "resource")[0]}, head)

    @staticmethod
    def _record(row: dict[str, Any]) -> _Item:
        attributes, _ = _attributes(row["attribute_lists"], {}, "attributes")
        body: dict[str, Any] = {
            "timeUnixNano": row["time_unix_nano"],
            "severityNumber": row["severity"],
            "attributes": attributes,
        }
        if row["body"]:
            body["body"] = {"stringValue": row["body"]}
        if row["event"]:
            body["eventName"] = row["event"]
        body |= {key: row[name] for key, name in (("traceId", "trace_id"), ("spanId", "span_id")) if row[name]}
        resource = {"attributes": _attributes(row["resource_lists"], {}, "resource")[0]}
        return _Item(body, resource, {"scope": {"name": row["scope"]}})

    def _whole(self, row: dict[str, Any], values: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
        """Big values by place and key, put together from their elements; without those that are not stored any more."""
        parts: dict[tuple[str, str], list[str | None]] = {}
        forms: dict[tuple[str, str], str] = {}
        for key, form, hash_ in row["reference_lists"]:
            found = _PLACE.fullmatch(key)
            if found is None:
                continue
            at = (found[1], found[2]) if found[1] else (f"{found[3]}[{found[4]}]", found[5])
            parts.setdefault(at, []).append(values.get((row["trace_id"], hash_)))
            forms[at] = form
        whole = {}
        for at, texts in parts.items():
            known = [text for text in texts if text is not None]
            if len(known) < len(texts):
                self.report.values_missing += 1
            elif forms[at] == "text":
                whole[at] = known[0]
            else:
                whole[at] = f"[{(', ' if forms[at] == 'item_sp' else ',').join(known)}]"
        return whole

    # Pages

    def _days(self, table: Table) -> list[str]:
        first, last = self._chosen.days
        sql = load_sql("spanwise", "export_days").replace("{table}", table.name)
        return [row["day"] for row in self._rows(sql.replace("{first}", first).replace("{last}", last))]

    def _pages(self, table: Table, day: str) -> Iterator[_Page]:
        """Neighbouring minutes together, minutes that are too big in parts."""
        time = _TIMES.get(table.name)
        minute = f"intDiv(toUnixTimestamp64Nano({time}), {_MINUTE_NS})" if time else "toInt64(0)"
        bytes_ = {"spans": "arraySum(content.bytes)", "content": "length(value)", "log_events": "length(body)"}
        sql = self._sql("export_pages", table, _Page(day), minute=minute, bytes=bytes_.get(table.name, "0"))
        held = _Held()
        for row in self._rows(sql):
            at, rows, size = int(row["minute"]), int(row["rows"]), int(row["bytes"])
            if held.rows and (held.rows + rows > _PAGE_ROWS or held.size + size > _PAGE_BYTES):
                yield from held.pages(day)
                held = _Held()
            held.add(at, rows, size)
        yield from held.pages(day)

    def _sql(self, name: str, table: Table, page: _Page, **places: str) -> str:
        """A query with its places filled in: names are ours, values are quoted."""
        sql = load_sql("spanwise", name)
        places |= {"table": table.name, "day": f"toDate({literal(page.day)})", "page": page.where(table)}
        places["chosen"] = self._chosen.where(table.name)
        return re.sub(r"\{(\w+)\}", lambda found: places[found[1]], sql)

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in io.BytesIO(b"".join(self._ask(sql, "jsonl"))) if line.strip()]

    def _count(self, table: Table, day: str, rows: int) -> None:
        self.report.rows[table.name] = self.report.rows.get(table.name, 0) + rows
        self._progress(table.name, day, rows)

    def _there(self, path: Path) -> bool:
        self.report.there += path.exists()
        return path.exists()

    def _finish(self, partial: Path, path: Path) -> None:
        partial.replace(path)
        self.report.files.append(path)


@dataclass(slots=True)
class _Held:
    """Minutes that will be one page, or one minute that will be several."""

    rows: int = 0
    size: int = 0
    low: int = 0
    high: int = 0

    def add(self, minute: int, rows: int, size: int) -> None:
        self.low = self.low if self.rows else minute
        self.high, self.rows, self.size = minute, self.rows + rows, self.size + size

    def pages(self, day: str) -> Iterator[_Page]:
        if self.rows:
            parts = max(1, math.ceil(self.rows / _PAGE_ROWS), math.ceil(self.size / _PAGE_BYTES))
            yield from (_Page(day, self.low, self.high, part, parts) for part in range(parts))


# OTLP values


@dataclass(frozen=True, slots=True)
class _Item:
    """A span or log record with the resource and the scope it stands under."""

    body: dict[str, Any]
    resource: dict[str, Any]
    scope: dict[str, Any]


_SPAN_WORDS: Final = ("resourceSpans", "scopeSpans", "spans")
_LOG_WORDS: Final = ("resourceLogs", "scopeLogs", "logRecords")
_OPTIONAL: Final = (
    ("parentSpanId", "parent_span_id"),
    ("traceState", "trace_state"),
    ("flags", "flags"),
    ("droppedAttributesCount", "dropped_attributes_count"),
    ("droppedEventsCount", "dropped_events_count"),
    ("droppedLinksCount", "dropped_links_count"),
)


def _attributes(
    lists: Sequence[Any], whole: dict[tuple[str, str], str], place: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(attributes as OTLP, values that were derived and not sent). Without types every value is text."""
    keys, texts, types = lists
    sent, derived = [], {}
    for index, (key, text) in enumerate(zip(keys, texts, strict=True)):
        letter = types[index] if index < len(types) else "s"
        if letter.isupper():
            derived[key] = text
        else:
            sent.append({"key": key, "value": any_value(letter, whole.get((place, key), text))})
    return sent, derived


def any_value(letter: str, text: str) -> dict[str, Any]:
    """An OTLP value of the type a letter of `attribute_types` stands for; text where it cannot be read as that."""
    read = _READ.get(letter)
    if read is not None:
        try:
            return read(text)
        except ValueError:  # a value that was cut and is not whole any more
            pass
    return {"stringValue": text}


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written, keys that come twice included."""


def _from_json(value: object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match value:
        case bool():
            found = {"boolValue": value}
        case int():
            found = {"intValue": str(value)}
        case float():
            found = _double(value)
        case str():
            found = {"stringValue": value}
        case _Pairs():
            found = {"kvlistValue": {"values": [{"key": key, "value": _from_json(each)} for key, each in value]}}
        case list():
            found = {"arrayValue": {"values": [_from_json(each) for each in value]}}
    return found


def _double(value: float) -> dict[str, Any]:
    if math.isfinite(value):
        return {"doubleValue": value}
    return {"doubleValue": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}


def _nested(text: str) -> dict[str, Any]:
    return _from_json(json.loads(text, object_pairs_hook=_Pairs))


_READ: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "b": lambda text: {"boolValue": text == "true"},
    "i": lambda text: {"intValue": str(int(text))},
    "d": lambda text: _double(float(text)),
    "y": lambda text: {"bytesValue": base64.b64encode(bytes.fromhex(text)).decode()},
    "n": lambda _text: {},
    "a": _nested,
    "k": _nested,
}


# Folders


def begin(folder: Path, format_: str, asked: dict[str, Any], chosen: Selection) -> Selection:
    """Make a folder ready and say what to write into it: what it was begun with, if that was asked for in these words.

    Raises ExportError if it holds files of another export, OSError if it cannot be written.
    """
    manifest = folder / _MANIFEST
    told = {"format": format_, "asked": asked}
    folder.mkdir(parents=True, exist_ok=True)
    if manifest.exists():
        begun = _begun(manifest, told)
        if begun is not None:
            return begun
        if any(path.name.endswith((".parquet", ".jsonl.gz")) for path in folder.iterdir()):
            raise ExportError(f"{folder} holds an export of something else: choose another directory")
    manifest.write_text(json.dumps({**told, "chosen": dataclasses.asdict(chosen)}, indent=1), encoding="utf-8")
    return chosen


def _begun(manifest: Path, told: dict[str, Any]) -> Selection | None:
    """What an earlier export of the same chose, None if it was of something else."""
    try:
        kept = json.loads(manifest.read_text(encoding="utf-8"))
        return Selection(**kept["chosen"]) if {name: kept.get(name) for name in told} == told else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{manifest} cannot be read: choose another directory") from error
