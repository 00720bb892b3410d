"""The whole program as a user meets it: its own process, real ports, real store."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import urllib3

from spanwise.store.migrate import migrations
from tests.cli.conftest import ROOT, Run
from tests.importing.test_importing import line
from tests.running import RunningServer, free_port
from tests.web.serving import Serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("program") / "data") as running:
        yield running


def test_import_tells_new_spans_from_repeated_and_broken_ones(
    spanwise: Run, server: RunningServer, tmp_path: Path
) -> None:
    def request(*span_ids: str) -> bytes:
        spans = [{"traceId": "5b" * 16, "spanId": each, "name": "chat", "startTimeUnixNano": "1"} for each in span_ids]
        return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode() + b"\n"

    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl.gz"
    first.write_bytes(request("aa" * 8, "ab" * 8))
    second.write_bytes(gzip.compress(request("ab" * 8, "ac" * 8) + b"oops\n" + request("00" * 8)))
    where = ("--endpoint", server.http, "--web", server.web)

    once, again = spanwise("import", str(first), *where), spanwise("import", str(first), *where)
    other = spanwise("import", str(second), *where)

    assert once.out == f"{first}: 2 spans sent, 2 new, 0 already there, 0 rejected\n"
    assert again.out == f"{first}: 2 spans sent, 0 new, 2 already there, 0 rejected\n"
    assert (once.code, again.code, other.code) == (0, 0, 0)
    assert other.out.splitlines()[0] == f"{second}: 3 spans sent, 1 new, 1 already there, 1 rejected"
    assert f"{second}: line 2: is not JSON (character 1)" in other.out
    assert "rejected 1: " in other.out
    assert spanwise("sql", "SELECT count() FROM spans FINAL", "-f", "csv", "--web", server.web).out == '"count()"\n3\n'


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("table", "n  text\n1  a'b\n"),
        ("json", '[{"n":1,"text":"a\'b"}]\n'),
        ("jsonl", '{"n":1,"text":"a\'b"}\n'),
        ("csv", '"n","text"\n1,"a\'b"\n'),
    ],
)
def test_sql_prints_every_format(spanwise: Run, server: RunningServer, format_: str, expected: str) -> None:
    done = spanwise("sql", "SELECT 1 AS n, 'a''b' AS text", "--format", format_, SPANWISE_WEB=server.web)

    assert (done.code, done.out, done.err) == (0, expected, "")


def test_sql_reads_and_nothing_else(spanwise: Run, server: RunningServer) -> None:
    for statement in ("DROP TABLE spans", "SELECT file('/etc/hostname')", "INSERT INTO spans SELECT * FROM spans"):
        done = spanwise("sql", statement, "--web", server.web)
        assert (done.code, done.out) == (1, "")
        assert "not allowed" in done.err


def test_a_stored_trace_is_listed_and_shown(spanwise: Run, server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_bytes(line("shown-one").replace(b'"0000000000000000"', b'"00000000000000aa"'))
    assert spanwise("import", str(file), "--endpoint", server.http, "--web", server.web).code == 0
    trace_id = b"shown-one".ljust(16, b"t").hex()
    server.wait_for(f"SELECT count() FROM traces FINAL WHERE trace_id = '{trace_id}'", 1)

    listed, shown = spanwise("traces", "--web", server.web), spanwise("trace", trace_id[:20], "--web", server.web)

    assert trace_id in listed.out
    assert shown.out.splitlines()[0].startswith(f"trace {trace_id} · ")
    assert shown.out.splitlines()[1].startswith("shown-one")


def test_health_metrics_and_the_page_answer(server: RunningServer) -> None:
    def get(path: str) -> str:
        answer = urllib3.request("GET", server.web + path)
        assert answer.status == 200, path
        return answer.data.decode()

    assert json.loads(get("/readyz")) == {"status": "ready"}
    assert "spanwise_journal_bytes " in get("/metrics")
    assert server.http in get("/")
    assert json.loads(get("/api/v1/status"))["grpc"] == server.grpc
    assert json.loads(get("/api/v1/summary"))["spans"] >= 0


def test_up_prints_the_ports_it_got_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    ports = [argument for name in ("--grpc", "--http", "--web", "--clickhouse") for argument in (name, "127.0.0.1:0")]
    process = subprocess.Popen(
        [sys.executable, "-m", "spanwise", "up", "--data", str(tmp_path / "data"), *ports],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    shown = _until(process.stdout, "stop")
    answer = urllib3.request("GET", f"{shown['API']}/readyz")
    process.send_signal(signal.SIGTERM)
    process.stdout.close()

    assert answer.status == 200
    assert not any(address.endswith(":0") for address in shown.values())
    assert process.wait(30) == 0


def _until(out: IO[str], last: str) -> dict[str, str]:
    shown = {}
    for text in out:
        name, _, value = text.strip().partition("   ")
        shown[name] = value.strip()
        if text.startswith(last):
            break
    return shown


def test_a_port_that_is_taken_and_a_data_folder_in_use_stop_the_start_with_a_sentence(
    spanwise: Run, server: RunningServer, tmp_path: Path
) -> None:
    free = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    web = server.web.removeprefix("http://")

    taken = spanwise("up", "--data", str(tmp_path / "data"), *free, "--web", web)
    used = spanwise("up", "--data", str(server.directory), *free, "--web", "127.0.0.1:0")

    assert (taken.code, used.code) == (1, 1)
    assert taken.err.splitlines()[-1].startswith("spanwise: cannot start web: ")
    assert used.err.splitlines()[-1].startswith("spanwise: cannot open journal in ")
    assert "Traceback" not in taken.err + used.err


def test_check_says_what_is_wrong_with_a_file(spanwise: Run, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    right.write_text("receiver:\n  grpc: 127.0.0.1:0\nstore:\n  ttl_days: {spans: 7}\n")
    wrong.write_text("receiver:\n  grcp: 127.0.0.1:0\n")

    assert spanwise("check", str(right)).out == f"{right}: the configuration is right\n"
    done = spanwise("check", str(wrong))
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "spanwise: the configuration is wrong\n"
        f"  {wrong}:2: receiver.grcp: there is no such option; did you mean `grpc`?\n"
    )


def test_health_tells_whether_the_server_runs_and_takes_data(
    spanwise: Run, server: RunningServer, api: Serving
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    api.not_ready["journal"] = "the disk is full"

    assert (spanwise("health", "--web", server.web).out, spanwise("health", "--alive", "--web", api.url).out) == (
        "ready\n",
        "alive\n",
    )
    full, gone = spanwise("health", SPANWISE_WEB=api.url), spanwise("health", "--alive", "--web", nobody)
    assert (full.code, full.err) == (1, "spanwise: the server is not ready; journal: the disk is full\n")
    assert (gone.code, gone.err.split(";")[0]) == (1, f"spanwise: no Spanwise server answers at {nobody}")


def test_migrate_makes_the_schema_once_and_leaves_a_store_in_use_alone(
    spanwise: Run, server: RunningServer, tmp_path: Path
) -> None:
    place = tmp_path / "data" / "store"
    ready = f"the store in {place} has the schema of this program\n"

    first, second = (spanwise("migrate", "--data", str(place.parent)) for _ in range(2))
    used = spanwise("migrate", "--data", str(server.directory))

    assert first.out.splitlines()[: len(migrations())] == [migration.name for migration in migrations()]
    assert first.out.endswith(ready)
    assert (second.code, second.out) == (0, ready)
    assert used.code == 1
    assert f"spanwise: cannot open the store in {server.directory / 'store'}: another process has it open" in used.err


def test_up_listens_beyond_this_machine_only_with_insecure(spanwise: Run, tmp_path: Path) -> None:
    done = spanwise("up", "--data", str(tmp_path / "data"), "--web", "0.0.0.0:0", "--http", "0.0.0.0:0")

    assert done.code == 1
    assert "receiver: http: 0.0.0.0:0 can be reached from other machines" in done.err
    assert "web: address 0.0.0.0:0 can be reached from other machines" in done.err


def test_help_names_every_command(spanwise: Run) -> None:
    shown = spanwise("--help").out

    commands = ("up", "demo", "import", "sql", "traces", "trace", "check", "schema", "health", "migrate", "version")
    assert [name for name in commands if f" {name} " not in shown] == []
    assert all(spanwise(name, "--help").code == 0 for name in commands)


def test_completion_is_offered(spanwise: Run) -> None:
    done = spanwise(_SPANWISE_COMPLETE="complete_bash", COMP_WORDS="spanwise tr", COMP_CWORD="1")

    assert done.out.split() == ["traces", "trace"]
