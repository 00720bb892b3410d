"""Files of OTLP export requests, sent to a running server in bounded batches.

A file is OTLP/JSON (one request a line, or one document) or protobuf (one request, or requests each after its length
as a varint), plain, gzip or zstd. What is read is cut into units, the smallest pieces the server can take alone: a
line, a length-delimited request, or one resource of a single big request. Units are sent together up to `BATCH_BYTES`;
a batch that the server refuses as a whole is halved until the unit at fault is found and named.

After each acknowledged batch the place in the file is kept beside it, so that an interrupted import goes on there.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias, cast

import orjson
import pyarrow as pa
import urllib3
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from spanwise.model import Signal
from spanwise.reach import trouble

BATCH_BYTES: Final = 4 << 20
UNIT_BYTES_MAX: Final = 64 << 20
"""A line or message beyond this is broken: the server would not take it either."""
BROKEN_LISTED_MAX: Final = 20
TRACES_COUNTED_MAX: Final = 200_000
"""Ids that are kept to tell new spans from repeated ones; about 30 MB."""
_STATE_SUFFIX: Final = ".spanwise-import"
_RETRY_STATUS: Final = frozenset({429, 502, 503, 504})
_PIECE_STATUS: Final = frozenset({400, 413, 500})
"""What is wrong with a piece; any other refusal is about the server, and the same for the next piece."""
_RETRY_PAUSE_MAX_S: Final = 30.0
_RESOURCE_TAG: Final = 0x0A  # field 1, length-delimited: `resource_spans` and `resource_logs` alike

_JSON_BEGINS: Final = re.compile(rb"\{|\[\s*\{")
_UNPACK_ERRORS: Final = (EOFError, zlib.error, OSError)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Kind = Literal["json", "protobuf"]


class ImportStoppedError(Exception):
    """The import cannot go on; what was acknowledged stays, and another run continues."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a file that can be sent alone."""

    place: str
    """Where it is, for people: `line 12` or `byte 4096`."""
    end: int
    """Decompressed bytes of the file up to and with it."""
    signal: Signal
    body: bytes
    """Protobuf: field 1 of a request, once or more. JSON: a whole request."""
    items: int
    trace_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Broken:
    """A piece of a file that cannot be sent, and why."""

    place: str
    end: int
    why: str


@dataclass
class Report:
    """What became of a file in this run."""

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    logs_accepted: int = 0
    logs_rejected: int = 0
    resumed_at: int = 0
    """Decompressed bytes that an earlier run had sent."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Rejected spans and log records by reason, the server's or ours."""
    broken: int = 0
    """Lines or messages left out."""
    listed: list[str] = field(default_factory=list)
    """The first of these, each with its place."""
    before: int | None = 0
    """Spans of the same traces that the server had before; None if it is not known."""
    trace_ids: set[str] = field(default_factory=set)
    many_traces: bool = False
    """More than `TRACES_COUNTED_MAX`: they are not counted any more."""

    @property
    def rejections(self) -> int:
        return self.rejected + self.logs_rejected

    def reject(self, signal: Signal, items: int, reason: str) -> None:
        if signal == "logs":
            self.logs_rejected += items
        else:
            self.rejected += items
        if reason in self.reasons or len(self.reasons) < BROKEN_LISTED_MAX:
            self.reasons[reason] = self.reasons.get(reason, 0) + items
        else:
            self.reasons["other reasons"] = self.reasons.get("other reasons", 0) + items

    def leave_out(self, place: str, why: str) -> None:
        self.broken += 1
        if len(self.listed) < BROKEN_LISTED_MAX:
            self.listed.append(f"{place}: {why}")


CountSpans: TypeAlias = Callable[[Sequence[str]], int | None]
"""Asks the server how many distinct spans it has of these traces; None if it does not say."""


# Reading


def open_decompressed(path: Path) -> IO[bytes]:
    """The file's bytes, whatever it is packed in; looks at the content, not at the name."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if magic == b"\x28\xb5\x2f\xfd":
        unpacked = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
        return cast("IO[bytes]", io.BufferedReader(cast("io.RawIOBase", unpacked)))
    return path.open("rb")


def detect(path: Path) -> Kind:
    """JSON starts with a brace, protobuf never does (it would be field 15, a group), nor with a list of such."""
    try:
        with open_decompressed(path) as file:
            head = file.read(4096).lstrip(_BYTE_ORDER_MARK + b" \t\r\n")
    except _UNPACK_ERRORS as error:
        _raise_if_unreadable(error)
        head = b""  # `read_units` meets the same damage and says so
    return "json" if _JSON_BEGINS.match(head) else "protobuf"


def read_units(path: Path, signal: Signal, start: int = 0) -> Iterator[Unit | Broken]:
    """The pieces of a file after its first `start` decompressed bytes.

    `signal` is what a protobuf file holds; JSON says so itself. Where the compression is damaged, the rest is one
    broken piece. Raises OSError if the file cannot be opened or read.
    """
    try:
        yield from _json_units(path, start) if detect(path) == "json" else _protobuf_units(path, signal, start)
    except _UNPACK_ERRORS as error:
        _raise_if_unreadable(error)
        yield Broken("the rest", 0, f"cannot be unpacked: {type(error).__name__}, the file is cut short or damaged")


def _raise_if_unreadable(error: Exception) -> None:
    """What the system says has a number; a decompressor that cannot go on gives none."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _json_units(path: Path, start: int) -> Iterator[Unit | Broken]:
    with open_decompressed(path) as file:
        end = line_number = 0
        first = True
        while line := file.readline(UNIT_BYTES_MAX + 1):
            line_number += 1
            end += len(line)
            long = len(line) > UNIT_BYTES_MAX
            rest = line
            while long and not rest.endswith(b"\n") and (rest := file.readline(UNIT_BYTES_MAX)):
                end += len(rest)
            if end <= start or not line.strip():
                continue
            place = f"line {line_number}"
            if long:
                yield Broken(place, end, f"longer than {UNIT_BYTES_MAX >> 20} MiB")
                continue
            try:
                unit = _json_unit(place, end, line)
            except orjson.JSONDecodeError as error:
                if first and (whole := _whole_document(path, line)) is not None:
                    yield whole
                    return
                unit = Broken(place, end, f"is not JSON (character {error.pos + 1})")
            first = False
            yield unit


def _whole_document(path: Path, first_line: bytes) -> Unit | Broken | None:
    """What is written over many lines: a request, or why it is none. None if the lines do not belong together."""
    with open_decompressed(path) as file:
        text = file.read(UNIT_BYTES_MAX + 1)
    with contextlib.suppress(orjson.JSONDecodeError):
        if len(text) <= UNIT_BYTES_MAX:
            return _json_unit("the document", len(text), text)
    if first_line.removeprefix(_BYTE_ORDER_MARK).strip() not in (b"{", b"["):
        return None
    why = f"is longer than {UNIT_BYTES_MAX >> 20} MiB" if len(text) > UNIT_BYTES_MAX else "is not one JSON document"
    return Broken("the document", len(text), f"{why}, and not a request a line: `jq -c .` writes it so")


def _json_unit(place: str, end: int, text: bytes) -> Unit | Broken:
    """A JSON text as a request. Raises orjson.JSONDecodeError if it is none."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    request = orjson.loads(text)
    if isinstance(request, list) and all(isinstance(each, dict) for each in request):
        return Broken(place, end, "is a list: `jq -c '.[]'` writes the requests in it one a line")
    try:
        if "resourceSpans" in request:
            ids = [
                str(span.get("traceId", "")).lower()
                for resource in request["resourceSpans"]
                for scope in resource.get("scopeSpans", ())
                for span in scope.get("spans", ())
            ]
            return Unit(place, end, "traces", text, len(ids), frozenset(map(_hex_only, ids)))
        if "resourceLogs" in request:
            records = sum(
                len(scope.get("logRecords", ()))
                for resource in request["resourceLogs"]
                for scope in resource.get("scopeLogs", ())
            )
            return Unit(place, end, "logs", text, records, frozenset())
    except (TypeError, AttributeError):
        return Broken(place, end, "is not an OTLP export request")
    if isinstance(request, dict) and "resourceMetrics" in request:
        return Broken(place, end, "holds metrics, which Spanwise does not keep")
    return Broken(place, end, "is not an OTLP export request: neither resourceSpans nor resourceLogs")


def _hex_only(trace_id: str) -> str:
    """Ids go into a query: anything else than hex digits counts as none."""
    return trace_id if len(trace_id) == 32 and not trace_id.strip("0123456789abcdef") else ""


def _protobuf_units(path: Path, signal: Signal, start: int) -> Iterator[Unit | Broken]:
    delimited = not _is_single(path)
    with open_decompressed(path) as file:
        at = 0
        while True:
            begin = at
            try:
                body, at = _message(file, at, delimited=delimited)
            except ValueError as error:
                yield Broken(f"byte {begin}", at, str(error))
                return
            if body is None:
                return
            if at > start:
                yield _protobuf_unit(f"byte {begin}", at, signal, body)


def _message(file: IO[bytes], at: int, *, delimited: bool) -> tuple[bytes | None, int]:
    """The next unit and the place after it, None at the end. Raises ValueError if what follows is none."""
    if not delimited:
        tag = file.read(1)
        if not tag:
            return None, at
        if tag[0] != _RESOURCE_TAG:
            raise ValueError("is not an OTLP export request")
        at += 1
    length = _varint(file)
    if length is None:
        if delimited:
            return None, at
        raise ValueError("is cut short")
    size, width = length
    if size > UNIT_BYTES_MAX:
        raise ValueError(f"longer than {UNIT_BYTES_MAX >> 20} MiB, or no OTLP file")
    body = file.read(size)
    if len(body) < size:
        raise ValueError("is cut short")
    return (body if delimited else bytes([_RESOURCE_TAG]) + _encoded(size) + body), at + width + size


def _protobuf_unit(place: str, end: int, signal: Signal, body: bytes) -> Unit | Broken:
    try:
        if signal == "logs":
            logs = ExportLogsServiceRequest.FromString(body)
            records = sum(len(scope.log_records) for resource in logs.resource_logs for scope in resource.scope_logs)
            return Unit(place, end, signal, body, records, frozenset())
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return Broken(place, end, "is not an OTLP export request")
    ids = [
        span.trace_id.hex()
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return Unit(place, end, signal, body, len(ids), frozenset(map(_hex_only, ids)))


def _is_single(path: Path) -> bool:
    """True if the file is one request: a run of length-delimited fields 1 that ends exactly at its end."""
    with open_decompressed(path) as file:
        fields = 0
        while tag := file.read(1):
            try:
                length = _varint(file) if tag[0] == _RESOURCE_TAG else None
            except ValueError:
                return False
            if length is None or not _skip(file, length[0]):
                return False
            fields += 1
    return fields > 0


def _skip(file: IO[bytes], size: int) -> bool:
    while size:
        piece = len(file.read(min(size, 1 << 20)))
        if not piece:
            return False
        size -= piece
    return True


def _varint(file: IO[bytes]) -> tuple[int, int] | None:
    """(value, bytes read), None at the end of the file."""
    value = 0
    for index in range(10):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value, index + 1
    raise ValueError("is not an OTLP export request")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Progress


@dataclass
class Progress:
    """How far a file has been sent to an endpoint; kept beside the file while the import runs."""

    digest: str
    endpoint: str
    done: int = 0

    @staticmethod
    def path(file: Path) -> Path:
        return file.with_name(file.name + _STATE_SUFFIX)

    @classmethod
    def of(cls, file: Path, endpoint: str, *, restart: bool) -> Progress:
        """The progress of an earlier run of the same content to the same endpoint, else none."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        fresh = cls(digest, endpoint)
        if restart:
            return fresh
        try:
            kept = cls(**json.loads(cls.path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return fresh
        same = (kept.digest, kept.endpoint) == (digest, endpoint) and isinstance(kept.done, int) and kept.done >= 0
        return kept if same else fresh

    def keep(self, file: Path) -> None:
        place = self.path(file)
        partial = place.with_name(place.name + ".part")
        try:
            partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
            partial.replace(place)
        except OSError:
            return  # a folder that cannot be written only costs the resuming

    def forget(self, file: Path) -> None:
        try:
            self.path(file).unlink(missing_ok=True)
        except OSError:
            return


# Sending


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to one request."""

    status: int
    rejected: int
    message: str


class Sender:
    """Posts batches over OTLP/HTTP and waits as long as the server asks, up to `patience_s` without any progress."""

    def __init__(
        self,
        endpoint: str,
        *,
        token: str = "",
        patience_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=60))

    def send(self, batch: Sequence[Unit], kind: Kind) -> Answer:
        """Send units of one signal. Raises ImportStoppedError if the server stays away."""
        signal = batch[0].signal
        body, content_type = _joined(batch, kind)
        began = self._clock()
        while True:
            pause_s = 1.0
            try:
                response = self._http.request(
                    "POST",
                    f"{self.endpoint}/v1/{signal}",
                    body=body,
                    headers={"Content-Type": content_type, **self._headers},
                )
            except urllib3.exceptions.HTTPError as error:
                why, _ = trouble(self.endpoint, error)
            else:
                if response.status not in _RETRY_STATUS:
                    return self._answer(response, signal)
                pause_s = _retry_after(response.headers.get("Retry-After"))
                why = f"the server at {self.endpoint} answers {response.status}"
            if self._clock() - began + pause_s > self._patience_s:
                raise ImportStoppedError(
                    f"{why} for {self._patience_s:.0f} s; start it with `spanwise up` "
                    "or say where it is with --endpoint, then run the same import again: it goes on from here"
                )
            self._sleep(pause_s)

    def trouble(self) -> tuple[str, str] | None:
        """Why nobody can be reached there, and what to do about it; None if somebody answers."""
        try:
            self._http.request("GET", self.endpoint)
        except urllib3.exceptions.HTTPError as error:
            return trouble(self.endpoint, error)
        return None

    def _answer(self, response: urllib3.BaseHTTPResponse, signal: Signal) -> Answer:
        told = _told(response, signal)
        if response.status == 200 and told is None:
            raise ImportStoppedError(
                f"{self.endpoint} answered 200 and is no OTLP server; say where the server is with --endpoint"
            )
        return told or Answer(response.status, 0, "")


def _joined(batch: Sequence[Unit], kind: Kind) -> tuple[bytes, str]:
    if kind == "protobuf":  # messages that follow each other are one message
        return b"".join(unit.body for unit in batch), "application/x-protobuf"
    if len(batch) == 1:
        return batch[0].body, "application/json"
    key = "resourceSpans" if batch[0].signal == "traces" else "resourceLogs"
    resources = [resource for unit in batch for resource in orjson.loads(unit.body)[key]]
    return orjson.dumps({key: resources}), "application/json"


def _retry_after(header: str | None) -> float:
    try:
        return min(max(float(header or 1), 0.1), _RETRY_PAUSE_MAX_S)
    except ValueError:
        return 1.0


def _told(response: urllib3.BaseHTTPResponse, signal: Signal) -> Answer | None:
    """What is written in an answer, None if it is not of an OTLP server."""
    body, type_ = response.data, response.headers.get("Content-Type", "")
    try:
        if "json" in type_:
            told = orjson.loads(body) if body else {}
            partial = told.get("partialSuccess", {})
            rejected = int(partial.get("rejectedSpans", partial.get("rejectedLogRecords", 0)))
            return Answer(response.status, rejected, str(partial.get("errorMessage") or told.get("message", "")))
        if response.status != 200 or (body and "protobuf" not in type_):
            return None
        if signal == "logs":
            logs = ExportLogsServiceResponse.FromString(body).partial_success
            return Answer(200, logs.rejected_log_records, logs.error_message)
        spans = ExportTraceServiceResponse.FromString(body).partial_success
        return Answer(200, spans.rejected_spans, spans.error_message)
    except (ValueError, AttributeError, DecodeError):
        return None


# The import of one file


class Importer:
    """Sends one file after another; `progress` gets the decompressed bytes of the file that are done."""

    def __init__(
        self,
        sender: Sender,
        count_spans: CountSpans | None,
        *,
        signal: Signal = "traces",
        strict: bool = False,
        restart: bool = False,
    ) -> None:
        self._sender = sender
        self._count_spans = count_spans
        self._signal = signal
        self._strict = strict
        self._restart = restart

    def run(self, file: Path, progress: Callable[[int], None]) -> Report:
        """Import a file.

        Raises OSError if it cannot be read, ImportStoppedError if the server stays away or, when strict, at the first
        broken piece or rejected span.
        """
        kept = Progress.of(file, self._sender.endpoint, restart=self._restart)
        report = Report(resumed_at=kept.done, before=0 if self._count_spans else None)
        kind = detect(file)
        for batch, end in _batches(self._good(read_units(file, self._signal, kept.done), report, file)):
            self._ask_before(batch, report)
            self._send(batch, kind, report, file)
            kept.done = end
            kept.keep(file)
            progress(end)
        kept.forget(file)
        return report

    def _good(self, pieces: Iterator[Unit | Broken], report: Report, file: Path) -> Iterator[Unit]:
        for piece in pieces:
            if isinstance(piece, Unit):
                yield piece
                continue
            if self._strict:
                raise ImportStoppedError(f"{file}: {piece.place}: {piece.why}; nothing after it was sent (--strict)")
            report.leave_out(f"{file}: {piece.place}", piece.why)

    def _ask_before(self, batch: Sequence[Unit], report: Report) -> None:
        new = set().union(*(unit.trace_ids for unit in batch)) - report.trace_ids - {""}
        if self._count_spans is None or report.before is None or not new:
            return
        report.many_traces = len(report.trace_ids) + len(new) > TRACES_COUNTED_MAX
        found = None if report.many_traces else self._count_spans(sorted(new))
        if found is None:
            report.before = None
            report.trace_ids.clear()
        else:
            report.before += found
            report.trace_ids |= new

    def _send(self, batch: Sequence[Unit], kind: Kind, report: Report, file: Path) -> None:
        waiting = [list(batch)]
        while waiting:
            part = waiting.pop()
            answer = self._sender.send(part, kind)
            if answer.status != 200 and len(part) > 1 and answer.status in (400, 413):
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
                continue
            self._book(part, answer, report, file)

    def _book(self, part: Sequence[Unit], answer: Answer, report: Report, file: Path) -> None:
        items = sum(unit.items for unit in part)
        place = f"{file}: {_span_of(part)}"
        if answer.status not in (200, *_PIECE_STATUS):
            raise ImportStoppedError(
                f"the server at {self._sender.endpoint} answered {answer.status} {answer.message}".rstrip()
                + "; set SPANWISE_OTLP_TOKEN if it asks for a token, or --endpoint if it is another server"
            )
        rejected = min(answer.rejected, items) if answer.status == 200 else items
        why = answer.message or f"the server answered {answer.status}"
        if rejected and self._strict:
            raise ImportStoppedError(f"{place}: {rejected} rejected: {why} (--strict)")
        if answer.status != 200:
            report.leave_out(place, why)
        if rejected:
            report.reject(part[0].signal, rejected, f"{place}: {why}")
        if part[0].signal == "logs":
            report.logs_accepted += items - rejected
        else:
            report.sent += items
            report.accepted += items - rejected


def _span_of(part: Sequence[Unit]) -> str:
    return part[0].place if len(part) == 1 else f"{part[0].place} to {part[-1].place}"


def _batches(units: Iterator[Unit]) -> Iterator[tuple[list[Unit], int]]:
    """Units of one signal up to `BATCH_BYTES` together (one bigger unit goes alone), and where they end."""
    batch: list[Unit] = []
    size = 0
    for unit in units:
        if batch and (size + len(unit.body) > BATCH_BYTES or unit.signal != batch[0].signal):
            yield batch, batch[-1].end
            batch, size = [], 0
        batch.append(unit)
        size += len(unit.body)
    if batch:
        yield batch, batch[-1].end
