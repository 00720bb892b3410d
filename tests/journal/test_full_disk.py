"""Space: refuse before the disk is full, drain a disk that is full all the same, and heal without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spanwise.journal import files
from spanwise.stage import OverloadedError
from tests.journal.build import KIB, MIB, Clock, append, bodies, body, data_files, drain, opened, take


def fill(journal: object, size: int = 40_000) -> list[bytes]:
    """Append until refused; what was acknowledged."""

    async def send() -> list[bytes]:
        acked: list[bytes] = []
        for number in range(100_000):
            try:
                await journal.append("default", "traces", 1, body(number, size))  # type: ignore[attr-defined]
            except OverloadedError:
                break
            acked.append(body(number, size))
        return acked

    return asyncio.run(send())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "size=24m", "none", str(mount)), capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(("umount", "--lazy", str(mount)), check=True)


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def test_the_cap_refuses_and_heals_when_the_reader_catches_up(tmp_path: Path) -> None:
    with opened(tmp_path, bytes_max=2 * MIB, file_bytes_max=256 * KIB) as journal:
        acked = fill(journal)
        stats = journal.stats()
        assert MIB < stats.bytes <= 2 * MIB + 200 * KIB
        assert stats.refused["cap"] == 1
        assert bodies(drain(journal)) == acked
        assert fill(journal)
        drain(journal)


def test_a_cap_smaller_than_one_file_does_not_lock_the_journal_up(tmp_path: Path) -> None:
    """Only whole files are deleted, so a refusal must end the file that is being written."""
    with opened(tmp_path, bytes_max=1200 * KIB, file_bytes_max=1200 * KIB) as journal:
        for _ in range(3):
            acked = fill(journal, size=300_000)
            assert len(acked) == 3
            assert bodies(drain(journal)) == acked
            _until_deleted(tmp_path)


def test_a_directory_that_cannot_be_synced_does_not_end_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with opened(tmp_path, bytes_max=2 * MIB, file_bytes_max=2 * MIB) as journal:
        append(journal, body(1))
        journal.done(take(journal))
        with monkeypatch.context() as patch:
            patch.setattr(files, "fsync_directory", fail)
            with pytest.raises(OverloadedError):  # over the cap: the file ends, and as it is drained it is deleted
                append(journal, body(2, 3 * MIB))
            _until_deleted(tmp_path)
        asyncio.run(asyncio.wait_for(journal.append("default", "traces", 1, body(3)), 10))
        assert bodies(drain(journal)) == [body(3)]
    with opened(tmp_path) as journal:
        assert journal.stats().frames_lost == 0


def _until_deleted(directory: Path) -> None:
    for _ in range(1000):
        if not data_files(directory):
            return
        asyncio.run(asyncio.sleep(0.005))
    pytest.fail("the drained file is still there")


def _until_ballast(directory: Path) -> None:
    """The writer makes it after the commit that its caller saw."""
    for _ in range(1000):
        with contextlib.suppress(FileNotFoundError):
            if (directory / "ballast").stat().st_size == MIB:
                return
        asyncio.run(asyncio.sleep(0.005))
    pytest.fail("there is no ballast")


def test_the_free_space_floor_refuses_before_the_disk_is_full(small_disk: Path) -> None:
    with opened(small_disk / "data", free_bytes_min=8 * MIB, file_bytes_max=MIB) as journal:
        acked = fill(journal)
        assert free(small_disk) >= 7 * MIB
        assert journal.stats().refused["disk"] == 1
        assert bodies(drain(journal)) == acked
        asyncio.run(asyncio.sleep(0.06))  # free space is looked up every 50 ms
        assert fill(journal)
        drain(journal)


def test_the_floor_is_also_a_share_of_the_disk(small_disk: Path) -> None:
    with opened(small_disk / "data", free_fraction_min=0.5, file_bytes_max=MIB) as journal:
        fill(journal)
    assert 11 * MIB <= free(small_disk) <= 14 * MIB


def test_the_journal_accepts_again_once_others_free_the_disk(small_disk: Path) -> None:
    clock = Clock()
    with opened(small_disk / "data", clock, free_bytes_min=4 * MIB) as journal:
        hog = small_disk / "hog"
        hog.write_bytes(bytes(21 * MIB))
        clock.pass_s(0.1)
        with pytest.raises(OverloadedError, match="disk"):
            append(journal, body(1))
        hog.unlink()
        clock.pass_s(0.1)
        append(journal, body(2))
        assert bodies(drain(journal)) == [body(2)]


def test_a_disk_that_others_fill_loses_nothing_and_can_be_drained(small_disk: Path) -> None:
    """No floor: the journal runs into ENOSPC, with seals, restarts and deletes still to do."""
    data, clock = small_disk / "data", Clock()
    options: dict[str, Any] = {"file_bytes_max": MIB, "ballast_bytes": MIB, "cache_bytes_max": 0}
    with opened(data, clock, **options) as journal:
        append(journal, body(500_000))
        _until_ballast(data)
        acked = [body(500_000), *fill(journal)]
        assert journal.stats().refused["failing"] == 1
        with contextlib.suppress(OSError), (small_disk / "hog").open("wb", buffering=0) as hog:
            while True:
                hog.write(bytes(4096))
        assert free(small_disk) == 0
        held = take(journal, bytes_max=300_000)
    with opened(data, clock, **options) as journal:
        assert free(small_disk) < MIB
        assert take(journal) == held
        journal.done(held)
        kept = [*bodies(held.frames), *bodies(drain(journal, bytes_max=300_000))]
        assert set(acked) - set(kept) == set()
        assert journal.stats().damaged_files == 0
        clock.pass_s(2)
        assert fill(journal), "does not accept again after draining"
        (small_disk / "hog").unlink()
        drain(journal)
        clock.pass_s(2)
        append(journal, body(1))
        _until_ballast(data)


_LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from typing import Any
from spanwise.journal import files
from spanwise.stage import OverloadedError
from tests.journal.build import append, bodies, body, drain, opened, Clock
clock = Clock()
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
with opened(Path(sys.argv[1]), clock) as journal:
    acked, refused = [], 0
    while not refused:
        try:
            append(journal, body(len(acked), 50_000))
            acked.append(body(len(acked), 50_000))
        except OverloadedError:
            refused += 1
    try:
        append(journal, body(1))
        sys.exit("accepted at once after a failed write")
    except OverloadedError:
        pass
    clock.pass_s(2)
    append(journal, body(99))
    assert bodies(drain(journal)) == [*acked, body(99)]
    assert journal.stats().refused["failing"] == 2, journal.stats()
print(len(acked))
"""


def test_a_write_that_fails_half_way_refuses_its_senders_and_a_new_file_takes_over(tmp_path: Path) -> None:
    """A limit on the size of one file stands in for a full disk where nothing can be mounted."""
    run = subprocess.run((sys.executable, "-c", _LIMITED, str(tmp_path)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.splitlines()[-1]) > 5


def test_the_ballast_is_not_made_where_it_would_eat_into_the_floor(small_disk: Path) -> None:
    with opened(small_disk / "data", free_bytes_min=20 * MIB, ballast_bytes=4 * MIB):
        assert not (small_disk / "data" / "ballast").exists()
