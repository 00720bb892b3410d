"""What commands say when something is not as it should be: one sentence on standard error, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanwise.cli import app
from spanwise.cli.export import selection
from tests.cli.conftest import ROOT, Run, said
from tests.cli.other_server import OtherServer, other_server, untrusted
from tests.cli.test_look import SUMMARY, TREE, _answer
from tests.web.serving import Reads, Serving

ASKING = (["traces"], ["trace", "aa"], ["failures"], ["sql", "SELECT 1"], ["sql", "SELECT 1", "-f", "csv"], ["health"])


@pytest.fixture
def reads() -> Reads:
    return Reads(traces_found=[{**SUMMARY, "spans": TREE}], answer=lambda: _answer(["n"], ["UInt8"], [1]))


@pytest.mark.parametrize("command", [*ASKING, ["health", "--alive"], ["export", "-o", "out"]], ids=" ".join)
@pytest.mark.parametrize(
    ("status", "type_", "body"),
    [(200, "text/html", b"<html>"), (200, "application/json", b"[]"), (503, "text/html", b"<html>"), (302, "", b"")],
)
def test_a_server_that_is_not_spanwise_is_told(
    other: OtherServer, tmp_path: Path, command: list[str], status: int, type_: str, body: bytes
) -> None:
    other.status, other.type, other.body = status, type_, body
    if "out" in command:
        command = [*command[:-1], str(tmp_path / "out")]

    code, err = said(*command, "--web", other.url)

    assert code == 1
    assert err.startswith(f"spanwise: {other.url} answered {status} and is no Spanwise server; say where it is with ")


def test_a_server_behind_a_path_is_asked_there(other: OtherServer) -> None:
    said("traces", "--web", f"{other.url}/spanwise/")

    assert other.asked == ["/spanwise/api/v1/traces?limit=20"]


@pytest.mark.parametrize("web", ["http://[::1", "http://host:port"])
def test_an_address_that_cannot_be_read_is_told(web: str) -> None:
    code, err = said("traces", "--web", web)

    assert (code, err) == (
        1,
        f"spanwise: {web} is not the address of a server; write it like http://127.0.0.1:8080\n",
    )


def test_a_certificate_that_is_not_trusted_is_told() -> None:
    with other_server(untrusted()) as other:
        code, err = said("traces", "--web", other.url)

    assert code == 1
    assert err.startswith(f"spanwise: no TLS connection to {other.url}: certificate verify failed")


def test_a_name_that_nobody_knows_is_told() -> None:
    code, err = said("traces", "--web", "http://nowhere.invalid")

    assert (code, err.split(";")[0]) == (
        1,
        "spanwise: no Spanwise server answers at http://nowhere.invalid: the name cannot be resolved",
    )


@pytest.mark.parametrize("output", [".", "/", ".."])
def test_a_folder_is_no_file_to_write_to(api: Serving, output: str) -> None:
    code, err = said("sql", "SELECT 1", "-f", "csv", "-o", output, "--web", api.url)

    assert (code, err) == (1, f"spanwise: {output} is a directory; give --output the name of a file\n")


def test_a_query_that_is_no_text_is_told(api: Serving, spanwise: Run) -> None:
    result = CliRunner().invoke(app, ["sql", "-", "--web", api.url], input=b"\xff\xfe")

    assert (result.exit_code, result.stderr) == (1, "spanwise: standard input is not UTF-8 text\n")
    argument = spanwise("sql", os.fsdecode(b"SELECT '\xff'"), "--web", api.url)
    assert (argument.code, argument.err.split(";")[0]) == (1, "spanwise: the request is not a query")


def test_what_a_server_says_cannot_drive_the_terminal(other: OtherServer) -> None:
    other.status, other.type = 400, "application/json"
    other.body = json.dumps({"error": {"message": "cannot read '\x1b]0;owned\x07\x9b2J'", "hint": "x"}}).encode()

    _, err = said("sql", "SELECT toInt64(name) FROM spans", "--web", other.url)

    assert err == "spanwise: cannot read '�]0;owned��2J'; x\n"


# Pipes


def piped(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose standard output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "spanwise", *arguments],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    "command",
    [["traces"], ["traces", "--json"], ["trace", "0a"], ["sql", "S"], ["sql", "S", "-f", "csv"], ["version"]],
    ids=" ".join,
)
def test_a_reader_that_has_seen_enough_is_no_error(api: Serving, command: list[str]) -> None:
    arguments = command if command == ["version"] else [*command, "--web", api.url]

    done = piped(*arguments)

    assert (done.returncode, done.stderr) == (0, b"")


# Times, ids and terminals


@pytest.mark.parametrize("option", ["--from", "--to"])
@pytest.mark.parametrize("time", ["yesterday", "7x", "2026-13-01", "12 s"])
def test_a_wrong_time_is_told_with_its_option(tmp_path: Path, option: str, time: str) -> None:
    code, err = said("export", "-o", str(tmp_path / "out"), option, time)

    assert (code, err) == (
        1,
        f"spanwise: {option} {time}: is not a time; write 2026-11-21, 2026-11-21T08:30, or an age like 7d\n",
    )
    assert not (tmp_path / "out").exists()


def test_a_trace_id_that_is_not_whole_is_told(tmp_path: Path) -> None:
    code, err = said("export", "-o", str(tmp_path / "out"), "--trace", "0af7")

    assert (code, err.split(";")[0]) == (1, "spanwise: --trace 0af7: is not a trace id of 32 hex digits")


@pytest.mark.parametrize("time", ["999999d", "0001-01-01", "0001-01-01T00:00:00+14:00"])
def test_times_before_the_epoch_are_the_epoch(time: str) -> None:
    chosen = selection({"from": time, "to": "9999-12-31"})

    assert chosen.days == ("toDate('1970-01-01')", "toDate('2100-01-01')")


def test_json_on_a_terminal_holds_nothing_that_drives_it(api: Serving) -> None:
    evil = "\x1b[2J\x9b31m\x7f\u202eabc"
    api.reads.traces_found = [{**SUMMARY, "root_name": evil}]

    out = CliRunner().invoke(app, ["traces", "--json", "--web", api.url]).stdout

    assert json.loads(out)[0]["root_name"] == evil
    assert not set(out) & set(evil.removesuffix("31m").removesuffix("abc")) - set("[2J31mabc")


def test_a_dash_is_standard_output(api: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["sql", "SELECT 1", "-o", "-", "--web", api.url])

    assert result.stdout == "n\n1\n"
    assert list(tmp_path.iterdir()) == []
