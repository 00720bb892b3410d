"""What `spanwise import` says when something is not as it should be, and that it goes on where it can."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spanwise.cli.client import Client, CommandError
from spanwise.cli.files import import_files
from spanwise.importing import Importer, Report
from tests.cli.conftest import Run, said
from tests.cli.other_server import OtherServer, other_server, untrusted
from tests.importing.otlp import Endpoint, endpoint
from tests.importing.test_importing import line


@pytest.fixture
def otlp() -> Iterator[Endpoint]:
    with endpoint() as server:
        yield server


def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))
    with other_server(untrusted()) as other:
        code, err = said("import", str(file), "--endpoint", other.url)

    assert code == 1
    assert err.startswith(f"spanwise: no TLS connection to {other.url}: certificate verify failed")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone", "gone: there is no such file"),
        ("folder", "folder is a directory; name the files in it"),
        ("fifo", "fifo is no regular file; a file is read more than once: write it to disk first"),
    ],
)
def test_what_is_no_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")

    assert said("import", name) == (1, f"spanwise: {sentence}\n")


@pytest.mark.parametrize("status", [200, 301, 405, 415, 501])
def test_an_import_to_something_else_stops_and_says_so(other: OtherServer, tmp_path: Path, status: int) -> None:
    other.status = status
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))

    code, err = said("import", str(file), "--endpoint", other.url, "--web", other.url)

    assert code == 1
    assert f"{other.url} answered {status}" in err.splitlines()[-1]
    assert "--endpoint" in err.splitlines()[-1]


def test_an_endpoint_without_a_scheme_is_http(otlp: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))

    code, _ = said("import", str(file), "--endpoint", otlp.url.removeprefix("http://"), "--web", otlp.url)

    assert (code, otlp.spans) == (0, ["a"])


def test_a_file_of_something_else_is_told_with_what_a_file_holds(otlp: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(b"trace_id,span_id\n" * 1000)

    code, err = said("import", str(file), "--endpoint", otlp.url, "--web", otlp.url)

    assert (code, err.splitlines()[-1]) == (
        1,
        "spanwise: nothing could be taken from 1 of 1 files; a file holds OTLP JSON, a request a line or one document, "
        "or protobuf requests; --logs if of log records",
    )


def test_a_file_whose_name_is_no_text_is_imported(otlp: Endpoint, spanwise: Run, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_bytes(line("a"))

    done = spanwise("import", name, "--endpoint", otlp.url, "--web", otlp.url)

    assert (done.code, otlp.spans) == (0, ["a"])
    assert done.out == "caf\\udce9.jsonl: 1 spans sent, 1 accepted, 0 rejected\n"


def test_an_import_whose_counting_fails_goes_on(tmp_path: Path, otlp: Endpoint) -> None:
    """The server's API fails when the first batch is counted: the spans are sent all the same."""
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))
    asked: list[str] = []

    class Failing(Client):
        def rows(self, statement: str) -> list[dict[str, Any]]:
            asked.append(statement)
            if len(asked) > 1:
                raise CommandError("the store does not answer", status=503)
            return []

        def metric(self, name: str) -> float | None:
            return 0.0

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        import_files([file], otlp.url, Failing("http://localhost"), logs=False, strict=False, restart=False)

    assert (len(asked), otlp.spans) == (2, ["a"])
    assert out.getvalue() == f"{file}: 1 spans sent, 1 accepted, 0 rejected\n"
    assert err.getvalue() == "new and repeated spans will not be told apart: the store does not answer\n"


def test_a_journal_in_kafka_cannot_tell_new_spans_from_repeated(otlp: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))

    class Worker(Client):
        def rows(self, statement: str) -> list[dict[str, Any]]:
            return [{"spans": 0}]

        def metric(self, name: str) -> float | None:
            return None

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        import_files([file], otlp.url, Worker("http://localhost"), logs=False, strict=False, restart=False)

    assert out.getvalue() == f"{file}: 1 spans sent, 1 accepted, 0 rejected\n"


def test_a_stopped_import_says_how_it_goes_on(otlp: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line("a"))

    def stopped(*_: object) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(Importer, "run", stopped)
    code, err = said("import", str(file), "--endpoint", otlp.url, "--web", otlp.url)

    assert (code, err.splitlines()[-1]) == (130, f"stopped at {file}; the same command goes on there")
