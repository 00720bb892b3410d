"""What `spanwise export` writes, and that `spanwise import` makes the same rows of it in another server."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import urllib3
from typer.testing import CliRunner

from spanwise.cli import app
from spanwise.cli.client import Client, CommandError
from spanwise.cli.export import export
from spanwise.exporting import Exporter, ExportError, Selection, any_value, begin
from spanwise.model import CONTENT, FINDINGS, LOG_EVENTS, SPANS, TRACES
from tests.exporting import everything
from tests.live.tape import RECORDED, read
from tests.running import RunningServer
from tests.shared import CORPUS

# When rows came, which of them wins, and ids made of how a request was written: an import is another delivery.
_DELIVERY = {"received_at", "version", "detected_at", "record_id"}
_COUNTS = {table: f"SELECT count() FROM {table} FINAL" for table in ("spans", "log_events", "traces")}


needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded telemetry in {CORPUS}")
"""The traces of this repository are of one day, without log records and failures."""


def post(server: RunningServer, signal: str, body: bytes, type_: str = "json") -> None:
    headers = {"Content-Type": f"application/{type_}"}
    answer = urllib3.request("POST", f"{server.http}/v1/{signal}", body=body, headers=headers)
    assert answer.status == 200, answer.data


@dataclass(frozen=True)
class Done:
    """What a finished command left."""

    returncode: int
    stdout: bytes
    stderr: bytes


def spanwise(server: RunningServer, *arguments: str) -> Done:
    environment = {"SPANWISE_WEB": server.web, "SPANWISE_OTLP": server.http}
    result = CliRunner().invoke(app, arguments, env=environment)
    return Done(result.exit_code, result.stdout_bytes, result.stderr_bytes or b"")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that was sent recorded traces and logs, and one trace with everything."""
    with RunningServer(tmp_path_factory.mktemp("source") / "data") as server:
        for tape in sorted(RECORDED.glob("*.binpb")):
            for body in read(tape):
                post(server, "traces", body, "x-protobuf")
        for path in sorted(CORPUS.glob("*.jsonl")) if CORPUS.is_dir() else ():
            if ".metrics." not in path.name:
                for body in path.read_bytes().splitlines():
                    post(server, "logs" if path.name.endswith(".logs.jsonl") else "traces", body)
        post(server, "traces", everything.request())
        settled(server)
        yield server


def settled(server: RunningServer) -> dict[str, int]:
    """Wait until nothing changes any more; the rows of each table."""
    quiet = 0
    before: dict[str, int] = {}
    while quiet < 5:
        found = {table: server.count(sql) for table, sql in _COUNTS.items()}
        busy = server.count("SELECT count() FROM spans FINAL WHERE usage_scope_reason = 'none yet'")
        waiting = [line for line in server.metrics() if line.startswith("spanwise_reconcile_dirty_traces ")]
        idle = found == before and not busy and all(line.endswith(" 0.0") for line in waiting)
        quiet, before = (quiet + 1 if idle else 0), found
        time.sleep(0.5)
    return before


@pytest.fixture(scope="module")
def exported(source: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "otlp"
    done = spanwise(source, "export", "--output", str(folder))
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture(scope="module")
def copy(exported: Path, source: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("copy") / "data") as server:
        files = sorted(map(str, exported.glob("*.jsonl.gz")))
        done = spanwise(server, "import", *files)
        assert done.returncode == 0, done.stderr.decode()
        settled(server)
        yield server


def rows(server: RunningServer, table: Any, *but: str) -> list[str]:
    columns = [
        "hex(fingerprint)" if name == "fingerprint" else name for name in table.names if name not in _DELIVERY | {*but}
    ]
    found = server.sql(f"SELECT {', '.join(columns)} FROM {table.name} FINAL")
    return sorted(json.dumps(row, sort_keys=True) for row in found)


@pytest.mark.parametrize(
    "table",
    [SPANS, pytest.param(LOG_EVENTS, marks=needs_corpus), TRACES, pytest.param(FINDINGS, marks=needs_corpus)],
    ids=lambda table: table.name,
)
def test_export_and_import_give_the_same_rows(source: RunningServer, copy: RunningServer, table: Any) -> None:
    timeless = ("day",)  # a span without a time is stored under the day it came
    there, here = rows(source, table, *timeless), rows(copy, table, *timeless)
    assert sorted({*here} ^ {*there}) == []
    assert len(here) == len(there) > 0


def test_export_and_import_give_the_same_big_values(source: RunningServer, copy: RunningServer) -> None:
    there, here = (
        server.sql("SELECT * FROM span_content ORDER BY tenant, trace_id, span_id, key") for server in (source, copy)
    )
    assert {row["missing"] for row in there} == {0}
    assert here == there


def test_line_is_a_request_of_bounded_size(exported: Path) -> None:
    lines = [line for path in exported.glob("*.gz") for line in gzip.decompress(path.read_bytes()).splitlines()]
    requests = [json.loads(line) for line in lines]
    assert {key for request in requests for key in request} <= {"resourceSpans", "resourceLogs"}
    spans = [
        sum(len(scope["spans"]) for each in request.get("resourceSpans", ()) for scope in each["scopeSpans"])
        for request in requests
    ]
    assert max(spans) <= 200


@needs_corpus
def test_second_run_leaves_what_is_there_and_makes_what_is_missing(source: RunningServer, tmp_path: Path) -> None:
    folder = str(tmp_path / "export")
    spanwise(source, "export", "--output", folder)
    (path,) = Path(folder).glob("spans-2026-11-21.jsonl.gz")
    others = {each: each.stat().st_mtime_ns for each in Path(folder).glob("*.gz") if each != path}
    content = gzip.decompress(path.read_bytes())
    path.unlink()
    done = spanwise(source, "export", "--output", folder)
    assert b"an earlier run had finished them" in done.stderr
    assert gzip.decompress(path.read_bytes()) == content
    assert {each: each.stat().st_mtime_ns for each in others} == others


def test_folder_of_another_export_is_left_alone(source: RunningServer, tmp_path: Path) -> None:
    folder = str(tmp_path / "export")
    spanwise(source, "export", "--output", folder, "--trace", "5" * 32)
    done = spanwise(source, "export", "--output", folder)
    assert (done.returncode, b"holds an export of something else: choose another directory" in done.stderr) == (1, True)


def test_standard_output_gets_the_chosen_trace(source: RunningServer) -> None:
    done = spanwise(source, "export", "--output", "-", "--trace", "5" * 32)
    requests = [json.loads(line) for line in done.stdout.splitlines()]
    spans = [
        span
        for request in requests
        for each in request["resourceSpans"]
        for scope in each["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted(span["name"] for span in spans) == ["agent", "chat", "no time"]
    (call,) = (span for span in spans if span["name"] == "chat")
    sent = json.loads(everything.request())["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert call["attributes"] == sent["attributes"]
    assert call["events"][0] == sent["events"][0]
    assert {key: call[key] for key in ("status", "flags", "links", "kind")} == {
        key: sent[key] for key in ("status", "flags", "links", "kind")
    }


def test_parquet_holds_the_tables(source: RunningServer, tmp_path: Path) -> None:
    done = spanwise(source, "export", "--format", "parquet", "--output", str(tmp_path / "tables"))
    assert done.returncode == 0, done.stderr.decode()
    for table in (SPANS, CONTENT, LOG_EVENTS, TRACES, FINDINGS):
        files = sorted((tmp_path / "tables").glob(f"{table.name}-*.parquet"))
        read_back = [pq.read_table(path) for path in files]
        assert all(tuple(each.column_names) == table.names for each in read_back)
        stored = source.count(f"SELECT count() FROM {table.name} FINAL")
        assert sum(each.num_rows for each in read_back) == stored
    assert not list((tmp_path / "tables").glob("*.part"))


def test_times_choose_spans_and_failed_chooses_traces(source: RunningServer) -> None:
    def ids(*arguments: str) -> set[tuple[str, str]]:
        done = spanwise(source, "export", "--output", "-", *arguments)
        assert done.returncode == 0, done.stderr.decode()
        return {
            (span["traceId"], span["spanId"])
            for line in done.stdout.splitlines()
            for each in json.loads(line).get("resourceSpans", ())
            for scope in each["scopeSpans"]
            for span in scope["spans"]
        }

    def stored(where: str) -> set[tuple[str, str]]:
        found = source.sql(f"SELECT trace_id, span_id FROM spans FINAL WHERE {where}")
        return {(row["trace_id"], row["span_id"]) for row in found}

    late = "2026-11-21T00:00:00"
    bad = "trace_id IN (SELECT trace_id FROM traces FINAL WHERE finding_severity IN ('high', 'critical'))"
    assert ids("--from", late) == stored(f"start_time >= '{late.replace('T', ' ')}'")
    assert ids("--to", late) == stored(f"start_time < '{late.replace('T', ' ')}'")
    assert ids("--failed") == stored(bad)


def test_format_that_needs_a_directory_refuses_standard_output(source: RunningServer) -> None:
    done = spanwise(source, "export", "--format", "parquet", "--output", "-")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"choose a directory with --output DIR" in done.stderr


def test_export_that_is_stopped_leaves_no_half_file(tmp_path: Path, source: RunningServer) -> None:
    client = Client(source.web)
    asked = 0

    def ask(statement: str, format_: str) -> list[bytes]:
        nonlocal asked
        asked += 1
        if asked > 8:
            raise CommandError("the server is gone")
        return list(client.sql(statement, format_))

    with contextlib.suppress(CommandError):
        Exporter(ask, Selection(), lambda *_: None).parquet(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_what_arrives_during_an_export_is_stored_meanwhile(source: RunningServer, tmp_path: Path) -> None:
    client, arrived = Client(source.web), 0

    def ask(statement: str, format_: str) -> Iterator[bytes]:
        nonlocal arrived
        for piece in client.sql(statement, format_):
            if arrived < 5:  # while this answer is open
                arrived += 1
                trace_id = f"{0xE0 + arrived:032x}"
                span = {"traceId": trace_id, "spanId": "1" * 16, "name": "meanwhile", "startTimeUnixNano": "1"}
                body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
                post(source, "traces", json.dumps(body).encode())
                source.wait_for(f"SELECT count() FROM spans FINAL WHERE trace_id = '{trace_id}'", 1)
            yield piece

    report = Exporter(ask, Selection(), lambda *_: None).parquet(tmp_path)
    assert (arrived, report.rows["spans"] > 0) == (5, True)


def test_busy_server_is_asked_again(tmp_path: Path) -> None:
    answers: list[Any] = [CommandError("too many reads are running", status=503), [], []]
    waited: list[float] = []

    class Busy(Client):
        def sql(self, statement: str, format_: str) -> Iterator[bytes]:
            answer = answers.pop(0) if answers else []
            if isinstance(answer, CommandError):
                raise answer
            yield from answer

    export(Busy("http://localhost"), {}, "parquet", str(tmp_path / "x"), sleep=waited.append)
    assert waited == [1.0]


def test_value_that_is_not_whole_any_more_is_text() -> None:
    assert any_value("a", '["cut') == {"stringValue": '["cut'}
    assert any_value("k", "{}") == {"kvlistValue": {"values": []}}
    assert any_value("i", "12") == {"intValue": "12"}


def test_folder_without_files_is_begun_anew(tmp_path: Path) -> None:
    """The first try found no server; the second one asks for something else."""
    begin(tmp_path, "parquet", {"from": "7d"}, Selection(start_ns=7))

    assert begin(tmp_path, "parquet", {"from": "8d"}, Selection(start_ns=8)) == Selection(start_ns=8)
    assert begin(tmp_path, "parquet", {"from": "8d"}, Selection(start_ns=9)) == Selection(start_ns=8)
    (tmp_path / "spans-2026-11-21.parquet").touch()
    with pytest.raises(ExportError, match="holds an export of something else"):
        begin(tmp_path, "parquet", {"from": "9d"}, Selection())


@pytest.mark.parametrize("manifest", ["", "[]", '{"format": "parquet", "asked": {}}', '{"chosen": 1}', "\udcff"])
def test_folder_with_a_manifest_of_somebody_else_is_left_alone(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "spanwise-export.json").write_text(manifest, errors="surrogateescape")
    (tmp_path / "spans-2026-11-21.parquet").touch()

    with pytest.raises(ExportError, match="choose another directory"):
        begin(tmp_path, "parquet", {}, Selection())


def test_export_that_is_interrupted_says_how_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(Client):
        def sql(self, statement: str, format_: str) -> Iterator[bytes]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(Interrupted("http://localhost"), {}, "parquet", str(tmp_path))

    assert capsys.readouterr().err == f"stopped; the same command goes on with what is missing in {tmp_path}\n"


def test_full_disk_is_told(tmp_path: Path) -> None:
    class Full(Client):
        def sql(self, statement: str, format_: str) -> Iterator[bytes]:
            raise OSError("write failed")  # as pyarrow says it, without a number

    with pytest.raises(CommandError, match=rf"cannot write {tmp_path}: write failed"):
        export(Full("http://localhost"), {}, "parquet", str(tmp_path))
