"""What a power cut would show: the order of system calls, and what happens when the disk says no to a sync."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journal.build import bodies, body, data_files, drain, opened

_APPEND = """
import asyncio, os, sys
from pathlib import Path
from tests.journal.build import body, opened
from spanwise.stage import OverloadedError

async def main():
    out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with opened(Path(sys.argv[1]), file_bytes_max=1 << 20) as journal:
        for number in range(int(sys.argv[3])):
            try:
                await journal.append("default", "traces", 1, body(number, 3000))
                os.write(out, b"acked %d\\n" % number)
            except OverloadedError:
                os.write(out, b"refused %d\\n" % number)
                await asyncio.sleep(1.1)

asyncio.run(main())
"""


def _strace(tmp_path: Path, appends: int, *options: str) -> tuple[list[str], list[str]]:
    """System calls of a process that appends one request after the other, and what its senders heard."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the order of sync and acknowledgement is not checked")
    trace, heard = tmp_path / "trace", tmp_path / "heard"
    command = ("strace", "-f", "-y", "-qq", "-o", str(trace), *options)
    child = (sys.executable, "-c", _APPEND, str(tmp_path / "data"), str(heard), str(appends))
    run = subprocess.run((*command, *child), capture_output=True, text=True, check=False)
    if "PTRACE" in run.stderr or "ptrace" in run.stderr:
        pytest.skip("strace may not trace here: the order of sync and acknowledgement is not checked")
    assert run.returncode == 0, run.stderr
    return trace.read_text().splitlines(), heard.read_text().splitlines()


def test_every_acknowledgement_follows_a_sync_of_the_wal_that_holds_the_request(tmp_path: Path) -> None:
    trace, heard = _strace(tmp_path, 60, "-e", "trace=pwrite64,write,fdatasync,fsync")
    assert heard == [f"acked {number}" for number in range(60)]
    dirty, acked, synced = False, 0, 0
    syncing: set[str] = set()  # threads inside a sync of a WAL
    for line in trace:
        thread, _, call = line.partition(" ")
        on_wal = re.match(r"\s*(\w+)\(\d+<[^>]*/journal-[^>]*-wal>", call)
        if on_wal and on_wal[1] == "pwrite64":
            dirty = True
        elif on_wal and "unfinished" in call:
            syncing.add(thread)
        elif on_wal or (" resumed>" in call and thread in syncing):
            syncing.discard(thread)
            dirty, synced = False, synced + 1
        elif '"acked' in call:
            acked += 1
            assert not dirty, f"acknowledgement {acked} came before the sync"
            assert synced >= acked
    assert acked == 60


@pytest.mark.parametrize(("call", "when"), [("fdatasync", 12), ("pwrite64", 22)])
def test_a_request_whose_commit_failed_is_refused_and_a_new_file_takes_over(
    tmp_path: Path, call: str, when: int
) -> None:
    """The disk fails once in the writer thread, late enough to hit a running journal."""
    trace, heard = _strace(tmp_path, 10, "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}")
    assert any("INJECTED" in line and "journal-" in line for line in trace), "the fault hit another file"
    refused = [int(line.split()[1]) for line in heard if line.startswith("refused")]
    acked = [int(line.split()[1]) for line in heard if line.startswith("acked")]
    assert len(refused) == 1
    assert refused[0] > 0, "the fault came before the first commit"
    assert sorted(acked + refused) == list(range(10))
    assert len(data_files(tmp_path / "data")) == 2
    with opened(tmp_path / "data") as journal:
        kept = bodies(drain(journal))
        assert journal.stats().damaged_files == 0
    assert [body(number, 3000) for number in acked] == [each for each in kept if each != body(refused[0], 3000)]
