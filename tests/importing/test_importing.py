from __future__ import annotations

import errno
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanwise import importing
from spanwise.importing import Broken, Importer, ImportStoppedError, Progress, Report, Sender, Unit, detect, read_units
from tests.importing.otlp import Endpoint, endpoint


def message(*names: str, resources: int = 1, pad: int = 0) -> ExportTraceServiceRequest:
    """A request with these spans, spread over so many resources."""
    request = ExportTraceServiceRequest()
    scopes = [request.resource_spans.add().scope_spans.add() for _ in range(resources)]
    for index, name in enumerate(names):
        span = scopes[index % resources].spans.add()
        span.name = name
        span.trace_id = name.encode().ljust(16, b"t")[:16]
        span.span_id = name.encode().ljust(8, b"s")[:8]
        span.trace_state = "x" * pad
    return request


def line(*names: str) -> bytes:
    spans = [{"traceId": name.encode().ljust(16, b"t")[:16].hex(), "spanId": "00" * 8, "name": name} for name in names]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode() + b"\n"


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def delimited(*requests: ExportTraceServiceRequest) -> bytes:
    return b"".join(varint(request.ByteSize()) + request.SerializeToString() for request in requests)


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd}
FORMS = {
    "json lines": line("a", "b") + b"\n" + line("c"),
    "json lines without a last newline": (line("a", "b") + line("c")).rstrip(),
    "one json document": json.dumps(json.loads(line("a", "b", "c")), indent=2).encode(),
    "json with a byte order mark": b"\xef\xbb\xbf" + line("a", "b", "c"),
    "one protobuf request": message("a", "b", "c", resources=2).SerializeToString(),
    "delimited protobuf": delimited(message("a", "b"), message("c")),
}


@pytest.fixture
def otlp() -> Iterator[Endpoint]:
    with endpoint() as server:
        yield server


def sender(otlp: Endpoint, patience_s: float = 10.0) -> Sender:
    return Sender(otlp.url, patience_s=patience_s, sleep=lambda _s: None)


def run(file: Path, otlp: Endpoint, *, strict: bool = False, known: Sequence[str] = ()) -> Report:
    importer = Importer(sender(otlp), lambda ids: len(set(ids) & set(known)), strict=strict)
    return importer.run(file, lambda _done: None)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_arrives_whole(tmp_path: Path, otlp: Endpoint, form: str, packer: str) -> None:
    file = tmp_path / "data"
    file.write_bytes(PACKERS[packer](FORMS[form]))

    report = run(file, otlp)

    assert sorted(otlp.spans) == ["a", "b", "c"]
    assert (report.sent, report.accepted, report.rejected, report.broken) == (3, 3, 0, 0)
    assert len(report.trace_ids) == 3


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_packed_files_that_were_joined_are_read_to_the_end(
    tmp_path: Path, otlp: Endpoint, pack: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / "data"
    file.write_bytes(pack(line("a")) + pack(line("b")))

    run(file, otlp)

    assert otlp.spans == ["a", "b"]


def test_batches_are_bounded(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data"
    file.write_bytes(delimited(*(message(f"s{n}", pad=400_000) for n in range(40))))

    run(file, otlp)

    assert len(otlp.spans) == 40
    assert len(otlp.requests) > 3
    assert max(size for _, _, size in otlp.requests) <= importing.BATCH_BYTES


def test_a_broken_line_is_named_and_the_others_are_sent(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a") + b'{"resourceSpans": [\n' + b"[1]\n" + b'{"resourceMetrics": []}\n' + line("b"))

    report = run(file, otlp)

    assert otlp.spans == ["a", "b"]
    assert report.broken == 3
    assert report.listed == [
        f"{file}: line 2: is not JSON (character 21)",
        f"{file}: line 3: is not an OTLP export request: neither resourceSpans nor resourceLogs",
        f"{file}: line 4: holds metrics, which Spanwise does not keep",
    ]


def test_strict_stops_at_the_first_broken_line(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a") + b"oops\n" + line("b"))

    with pytest.raises(ImportStoppedError, match=r"data\.jsonl: line 2: is not JSON"):
        run(file, otlp, strict=True)

    assert "b" not in otlp.spans


def test_a_request_the_server_refuses_is_found_among_the_others_and_named(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"".join(line(f"s{n}") for n in range(20)))
    otlp.poison = "s13"

    report = run(file, otlp)

    assert otlp.spans == [f"s{n}" for n in range(20) if n != 13]
    assert (report.accepted, report.rejected) == (19, 1)
    assert report.listed == [f"{file}: line 14: the server answered 400"]


def test_rejected_spans_are_counted_with_the_server_s_reason(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a", "bad") + line("b"))
    otlp.partial = "bad"

    report = run(file, otlp)

    assert (report.sent, report.accepted, report.rejected) == (3, 2, 1)
    assert report.reasons == {f"{file}: line 1 to line 2: span id is empty": 1}


def test_a_busy_server_is_waited_for_as_long_as_it_asks(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))
    otlp.refuse_first, otlp.retry_after = 3, "2.5"
    slept: list[float] = []

    Importer(Sender(otlp.url, sleep=slept.append), None).run(file, lambda _done: None)

    assert slept == [2.5, 2.5, 2.5]
    assert otlp.spans == ["a"]


def test_a_server_that_stays_busy_stops_the_import_with_the_next_step(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))
    otlp.refuse_first, otlp.retry_after = 10**9, "20"
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(ImportStoppedError, match=r"answers 503 for 60 s.*run the same import again"):
        Importer(Sender(otlp.url, sleep=sleep, clock=lambda: now[0]), None).run(file, lambda _done: None)


def test_an_interrupted_import_goes_on_where_it_stopped(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data"
    file.write_bytes(gzip.compress(delimited(*(message(f"s{n}", pad=900_000) for n in range(12)))))

    def interrupted(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Importer(sender(otlp), None).run(file, interrupted)
    first = list(otlp.spans)
    report = Importer(sender(otlp), None).run(file, lambda _done: None)

    assert 0 < len(first) < 12
    assert report.resumed_at > 0
    assert otlp.spans == [f"s{n}" for n in range(12)], "each once, none left out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("change", ["content", "endpoint", "restart", "damaged state"])
def test_progress_of_something_else_does_not_count(tmp_path: Path, otlp: Endpoint, change: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a") + line("b"))
    kept = Progress.of(file, otlp.url, restart=False)
    kept.done = len(line("a"))
    kept.keep(file)
    assert Progress.of(file, otlp.url, restart=False).done == len(line("a"))

    if change == "content":
        file.write_bytes(line("c") + line("b"))
    if change == "damaged state":
        Progress.path(file).write_text("{")
    url = "http://127.0.0.1:1" if change == "endpoint" else otlp.url

    assert Progress.of(file, url, restart=change == "restart").done == 0


def test_spans_the_server_had_before_are_asked_for_once_a_trace(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a", "b") + line("a", "c"))
    asked: list[list[str]] = []

    def count(trace_ids: Sequence[str]) -> int:
        asked.append(list(trace_ids))
        assert otlp.spans == [], "asked before anything of it is sent"
        return 5

    report = Importer(sender(otlp), count).run(file, lambda _done: None)

    assert report.before == 5
    assert [len(ids) for ids in asked] == [3]


def test_an_id_that_is_not_hex_never_reaches_a_query(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    request = json.loads(line("a"))
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] = "') OR 1=1 --".ljust(32)
    file.write_text(json.dumps(request) + "\n")
    asked: list[Sequence[str]] = []

    def count(trace_ids: Sequence[str]) -> int:
        asked.append(trace_ids)
        return 0

    Importer(sender(otlp), count).run(file, lambda _done: None)

    assert asked == []


def test_log_records_go_to_the_log_service(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"eventName": "x"}, {}]}]}]}
    file.write_bytes(line("a") + json.dumps(logs).encode() + b"\n" + line("b"))

    units = [unit for unit in read_units(file, "traces") if isinstance(unit, Unit)]

    assert [(unit.signal, unit.items) for unit in units] == [("traces", 1), ("logs", 2), ("traces", 1)]


def test_protobuf_logs_are_read_as_such_when_told(tmp_path: Path) -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().event_name = "x"
    file = tmp_path / "data"
    file.write_bytes(request.SerializeToString())

    (unit,) = read_units(file, "logs")

    assert isinstance(unit, Unit)
    assert (unit.signal, unit.items) == ("logs", 1)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("cut", [1, 8])
def test_a_packed_file_that_is_cut_short_is_told(
    tmp_path: Path, otlp: Endpoint, pack: Callable[[bytes], bytes], cut: int
) -> None:
    file = tmp_path / "data"
    file.write_bytes(pack(b"".join(line(f"s{n}") for n in range(1000)))[:-cut])

    report = run(file, otlp)

    assert report.broken == 1
    assert "cannot be unpacked" in report.listed[0]


@pytest.mark.parametrize("after", [b"\n" + line("b"), b""])
def test_a_line_beyond_the_limit_is_left_out_without_reading_it_whole(
    tmp_path: Path, otlp: Endpoint, monkeypatch: pytest.MonkeyPatch, after: bytes
) -> None:
    monkeypatch.setattr(importing, "UNIT_BYTES_MAX", 1 << 20)
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a") + b'{"' + b"x" * (3 << 20) + after)

    report = run(file, otlp)

    assert otlp.spans == ["a", "b"][: 1 + bool(after)]
    assert report.listed == [f"{file}: line 2: longer than 1 MiB"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"resourceSpans": []}]', "line 1: is a list: `jq -c '.[]'` writes the requests in it one a line"),
        (
            b'[\n  {"resourceSpans": []}\n]',
            "the document: is a list: `jq -c '.[]'` writes the requests in it one a line",
        ),
        (b'{\n  "resourceMetrics": []\n}\n', "the document: holds metrics, which Spanwise does not keep"),
        (
            b'{\n  "resourceSpans": []\n}\n{\n  "resourceSpans": []\n}\n',
            "the document: is not one JSON document, and not a request a line: `jq -c .` writes it so",
        ),
        (
            b'{\n  "resourceSpans": [\n' + b" " * (1 << 20) + b"]\n}\n",
            "the document: is longer than 1 MiB, and not a request a line: `jq -c .` writes it so",
        ),
    ],
)
def test_json_of_another_form_is_told_once_and_how_to_mend_it(
    tmp_path: Path, otlp: Endpoint, monkeypatch: pytest.MonkeyPatch, content: bytes, told: str
) -> None:
    monkeypatch.setattr(importing, "UNIT_BYTES_MAX", 1 << 20)
    file = tmp_path / "data.json"
    file.write_bytes(content)

    assert run(file, otlp).listed == [f"{file}: {told}"]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_comes_before_damage_is_sent(tmp_path: Path, otlp: Endpoint, pack: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "data"
    whole = pack(b"".join(line(f"s{n}") + os.urandom(600).hex().encode() + b"\n" for n in range(1000)))
    file.write_bytes(whole[: len(whole) // 2])

    run(file, otlp)

    assert len(otlp.spans) > 300


def test_a_file_the_disk_cannot_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))

    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(importing, "open_decompressed", lambda _path: Failing(line("a")))

    with pytest.raises(OSError, match="Input/output error"):
        list(read_units(file, "traces"))


def test_traces_are_counted_only_up_to_a_limit(tmp_path: Path, otlp: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "TRACES_COUNTED_MAX", 30)
    monkeypatch.setattr(importing, "BATCH_BYTES", 2_000)
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"".join(line(f"s{n}") for n in range(100)))

    report = run(file, otlp)

    assert (len(otlp.spans), report.accepted) == (100, 100)
    assert (report.many_traces, report.before, report.trace_ids) == (True, None, set())


def test_rejected_log_records_are_counted_too(tmp_path: Path, otlp: Endpoint) -> None:
    file = tmp_path / "data.jsonl"
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"eventName": "x"}, {}]}]}]}
    file.write_bytes(json.dumps(logs).encode() + b"\n")

    report = run(file, otlp)  # the endpoint takes traces only and answers 400

    assert (report.logs_accepted, report.logs_rejected, report.rejected) == (0, 2, 0)
    assert report.reasons == {f"{file}: line 1: the server answered 400": 2}


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_nothing_to_do(tmp_path: Path, otlp: Endpoint, content: bytes) -> None:
    file = tmp_path / "data"
    file.write_bytes(content)

    assert [piece for piece in read_units(file, "traces") if isinstance(piece, Unit)] == []


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_an_end_without_an_exception(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "data"
    file.write_bytes(data)

    assert detect(file) in ("json", "protobuf")
    assert all(isinstance(piece, (Unit, Broken)) for piece in read_units(file, "traces"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.booleans())
def test_single_and_delimited_protobuf_are_told_apart(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], one: bool
) -> None:
    file = tmp_path_factory.mktemp("pb") / "data"
    requests = [message(*(f"{n}{'x' * n * 7}" for n in range(size + 1))) for size in sizes]
    if one:
        file.write_bytes(b"".join(request.SerializeToString() for request in requests))
    else:
        file.write_bytes(delimited(*requests))

    units = list(read_units(file, "traces"))

    assert all(isinstance(unit, Unit) for unit in units)
    assert sum(unit.items for unit in units if isinstance(unit, Unit)) == sum(size + 1 for size in sizes)
