"""Damaged files: set aside, counted, the loss named, what reads cleanly kept, and the journal always starts."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journal.build import KIB, MEMORY, append, bodies, body, crash_copy, data_files, drain, opened, take

OFFSETS = int(os.environ.get("SPANWISE_DAMAGE", "200"))
SENT = [body(number, random.Random(number).choice([60, 900, 5000, 20_000])) for number in range(60)]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal after a crash: one range finished, one open, the rest unsealed, the newest file not closed."""
    directory = tmp_path_factory.mktemp("crashed")
    live, copy = directory / "live", directory / "copy"
    with opened(live, file_bytes_max=300 * KIB) as journal:
        for part in range(0, 60, 5):
            append(journal, *SENT[part : part + 5])
            if part == 10:
                journal.done(take(journal, bytes_max=15_000))
                assert take(journal, bytes_max=15_000).frames
        crash_copy(journal, live, copy)
    assert len(data_files(copy)) >= 2
    return copy


@pytest.fixture(scope="module")
def owed(crashed: Path, tmp_path_factory: pytest.TempPathFactory) -> set[bytes]:
    """What the undamaged journal still has to deliver."""
    whole = tmp_path_factory.mktemp("whole") / "data"
    shutil.copytree(crashed, whole)
    with opened(whole) as journal:
        assert journal.stats().damaged_files == 0
        return set(bodies(drain(journal)))


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    length = rng.choice([1, 1, 16, 600])
    content[at : at + length] = rng.randbytes(len(content[at : at + length]))
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


@pytest.mark.parametrize("harm", [flip, truncate])
def test_any_damage_leaves_a_journal_that_starts_and_names_its_loss(
    crashed: Path, owed: set[bytes], harm: Callable[[Path, random.Random], None]
) -> None:
    rng = random.Random(17)
    found = lost_frames = 0
    for _ in range(OFFSETS // 2):
        directory = Path(tempfile.mkdtemp(dir=MEMORY))
        shutil.copytree(crashed, directory, dirs_exist_ok=True)
        targets = sorted(path for path in directory.iterdir() if path.stat().st_size and path.name != "lock")
        target = rng.choice(targets)
        harm(target, rng)
        with opened(directory) as journal:
            kept = bodies(drain(journal))
            stats = journal.stats()
        assert set(kept) <= set(SENT), "a damaged frame was delivered"
        missing = owed - set(kept)
        # the end of a file that was still written to may be gone without a trace: it looks like a torn commit
        unseen = harm is truncate and stats.damaged_files == 0 and target.name.endswith("-wal")
        assert len(missing) == stats.frames_lost or unseen, f"{target.name}: {len(missing)} missing, {stats}"
        assert unseen or not missing or any("damaged" in path.name for path in directory.iterdir())
        found += stats.damaged_files
        lost_frames += stats.frames_lost
        with opened(directory) as journal:  # no crash loop: the second start finds nothing left to repair
            assert journal.stats().damaged_files == 0
            append(journal, body(999))
            assert bodies(drain(journal)) == [body(999)]
        shutil.rmtree(directory)
    assert found > OFFSETS // 40
    assert lost_frames > 0


def test_a_flipped_byte_costs_no_more_than_its_own_commit_group(tmp_path: Path) -> None:
    """SQLite's recovery alone would silently drop every commit behind the flipped byte."""
    with opened(tmp_path) as journal:
        for each in SENT:
            append(journal, each)
    (path,) = data_files(tmp_path)
    wal = path.with_name(path.name + "-wal")
    content = bytearray(wal.read_bytes())
    content[content.index(SENT[20][:60]) + 30] ^= 1  # in the middle of a body
    wal.write_bytes(content)
    with opened(tmp_path) as journal:
        kept = bodies(drain(journal))
        stats = journal.stats()
    assert len(SENT) - len(kept) == stats.frames_lost <= 1
    assert stats.damaged_files == 1


def test_damage_found_while_running_is_repaired_without_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path, cache_bytes_max=0) as journal:
        append(journal, *SENT)
        (path,) = data_files(tmp_path)
        wal = path.with_name(path.name + "-wal")
        at = wal.read_bytes().index(SENT[30][8:40])
        with wal.open("r+b") as handle:
            handle.seek(at)
            handle.write(b"\0" * 10)
        kept = bodies(drain(journal))
        append(journal, body(999))
        kept += bodies(drain(journal))
        stats = journal.stats()
    assert sorted(kept) == sorted({*SENT, body(999)} - {SENT[30]})
    assert (stats.damaged_files, stats.frames_salvaged, stats.frames_lost) == (1, 59, 1)


def test_damage_does_not_cost_the_memory_cache(tmp_path: Path) -> None:
    with opened(tmp_path, cache_bytes_max=50 * KIB) as journal:
        append(journal, *SENT)  # the last of them are still in memory when the first turn out to be damaged
        (path,) = data_files(tmp_path)
        path.write_bytes(b"not a database")
        assert bodies(drain(journal)) == SENT
        before = journal.stats().cache_misses
        append(journal, body(999))
        assert bodies(drain(journal)) == [body(999)]
        assert journal.stats().cache_misses == before


def test_salvaged_frames_get_new_tokens(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *SENT)
        before = take(journal, bytes_max=50_000)
    (path,) = data_files(tmp_path)
    path.write_bytes(b"not a database")
    with opened(tmp_path) as journal:
        again = take(journal)
    assert again.token.split(":")[0] != before.token.split(":")[0]
    assert bodies(again.frames) == SENT


def test_a_lost_state_database_delivers_everything_again(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *SENT)
        journal.done(take(journal, bytes_max=50_000))
    (tmp_path / "state.db").write_bytes(b"x" * 5000)
    with opened(tmp_path) as journal:
        assert journal.stats().damaged_files == 1
        assert bodies(drain(journal)) == SENT
    assert (tmp_path / "state.db.damaged").exists()


def test_a_missing_file_is_counted_with_its_frames(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *SENT)
        journal.done(take(journal, bytes_max=1))
        take(journal, bytes_max=1)
    for part in tmp_path.glob("journal-*"):
        part.unlink()
    for expected in (1, 0):
        with opened(tmp_path) as journal:
            assert (journal.stats().damaged_files, journal.stats().frames_lost) == (expected, 59 * expected)


def test_a_file_whose_end_could_not_be_recorded_is_not_counted_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    live, copy = tmp_path / "live", tmp_path / "copy"
    with opened(live, file_bytes_max=64 * KIB) as journal:
        taken = []
        for number in range(2):
            append(journal, body(number, 100 * KIB))
            taken.append(take(journal))
        with monkeypatch.context() as patch:
            patch.setattr(journal._state, "commit", fail)
            journal.done(taken[0])
        journal.done(taken[1])
        crash_copy(journal, live, copy)
    with opened(copy) as journal:
        assert (journal.stats().damaged_files, journal.stats().frames_lost) == (0, 0)
        assert drain(journal) == []


def test_damaged_files_are_kept_up_to_a_number(tmp_path: Path) -> None:
    for round_ in range(5):
        with opened(tmp_path, damaged_files_max=2) as journal:
            assert drain(journal) == []
            append(journal, body(round_))
        (path,) = data_files(tmp_path)
        path.with_name(path.name + "-wal").write_bytes(b"gone")
        path.write_bytes(b"gone")
    with opened(tmp_path, damaged_files_max=2) as journal:
        drain(journal)
        assert len(list(tmp_path.glob("journal-*.damaged"))) == 2


def test_the_set_aside_file_can_be_opened_with_sqlite(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *SENT)
    (path,) = data_files(tmp_path)
    wal = path.with_name(path.name + "-wal")
    with wal.open("r+b") as handle:
        handle.seek(wal.stat().st_size - 5)
        handle.write(b"12345")
    with opened(tmp_path) as journal:
        drain(journal)
        assert journal.stats().damaged_files == 1
    (damaged,) = tmp_path.glob("journal-*.db.damaged")
    assert damaged.with_name(damaged.name + "-wal").exists()
    sqlite3.connect(damaged).close()
