"""What the journal promises while nothing goes wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from spanwise.journal import JournalError, SqliteJournalConfig
from spanwise.stage import Journal, OverloadedError
from tests.journal.build import KIB, MIB, Clock, append, bodies, body, config, data_files, drain, opened, take


def test_a_request_comes_back_as_it_was_accepted(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as journal:
        asyncio.run(journal.append("acme", "logs", 7, b"\x00\xff payload"))
        (frame,) = take(journal).frames
    assert frame == (1, "acme", clock.unix_nano, "logs", 7, b"\x00\xff payload")


def test_the_journal_is_a_stage_journal(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        held: Journal = journal
        assert held.seal(bytes_max=1, timeout_s=0) is None


@pytest.mark.parametrize("cache", [0, 64 * MIB])
def test_frames_come_in_the_order_of_their_appends(tmp_path: Path, cache: int) -> None:
    sent = [body(number) for number in range(50)]
    with opened(tmp_path, cache_bytes_max=cache) as journal:
        append(journal, *sent)
        assert bodies(drain(journal, bytes_max=1000)) == sent


@pytest.mark.parametrize("cache", [0, 3 * KIB, 64 * MIB])
def test_ranges_are_cut_by_bytes_but_hold_at_least_one_frame(tmp_path: Path, cache: int) -> None:
    with opened(tmp_path, cache_bytes_max=cache) as journal:
        append(journal, *(body(number, 1000) for number in range(5)), body(5, 10_000), body(6, 1000))
        sizes = []
        while taken := journal.seal(bytes_max=2500, timeout_s=0):
            sizes.append([len(frame.body) for frame in taken.frames])
    merged = [size for each in sizes for size in each]
    assert merged == [1000] * 5 + [10_000, 1000]
    assert all(sum(each) <= 2500 or len(each) == 1 for each in sizes)


def test_what_no_longer_fits_the_memory_cache_is_read_back_from_disk(tmp_path: Path) -> None:
    sent = [body(number, 1000) for number in range(100)]
    with opened(tmp_path, cache_bytes_max=10 * KIB, file_bytes_max=64 * KIB) as journal:
        for part in range(0, 100, 10):
            append(journal, *sent[part : part + 10])
        assert bodies(drain(journal, bytes_max=7 * KIB)) == sent
        assert journal.stats().cache_misses > 0


def test_large_repetitive_requests_are_kept_compressed_and_come_back_whole(tmp_path: Path) -> None:
    history = b"".join(body(number % 20, 4000) for number in range(500))
    with opened(tmp_path, cache_bytes_max=0) as journal:
        append(journal, history)
        assert journal.stats().bytes < len(history) / 5
        assert bodies(drain(journal)) == [history]


def test_several_ranges_may_be_open_and_finish_in_any_order(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *(body(number, 100) for number in range(4)))
        ranges = [take(journal, bytes_max=100) for _ in range(4)]
        for position in (2, 0, 3):
            journal.done(ranges[position])
    with opened(tmp_path) as journal:
        assert take(journal) == ranges[1]
        assert journal.seal(bytes_max=100, timeout_s=0) is None


def test_open_ranges_come_first_and_unchanged_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *(body(number, 1000) for number in range(10)))
        before = [take(journal, bytes_max=3000), take(journal, bytes_max=1000)]
    with opened(tmp_path) as journal:
        after = [take(journal, bytes_max=1), take(journal, bytes_max=1 << 20)]
        rest = drain(journal)
    assert after == before
    assert bodies(rest) == [body(number, 1000) for number in range(4, 10)]


def test_a_token_is_never_given_to_other_frames(tmp_path: Path) -> None:
    named: dict[str, list[bytes]] = {}
    for round_ in range(6):
        with opened(tmp_path, Clock(), file_bytes_max=40 * KIB) as journal:  # the clock never moves
            append(journal, *(body(round_ * 100 + number, 3000) for number in range(10)))
            for _ in range(4):
                taken = take(journal, bytes_max=3000 * (1 + round_ % 3))
                assert named.setdefault(taken.token, bodies(taken.frames)) == bodies(taken.frames)
                if round_ % 2:
                    journal.done(taken)
    assert len(named) >= 12


def test_done_twice_or_for_an_unknown_range_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, body(1), body(2))
        taken = take(journal, bytes_max=1)
        journal.done(taken)
        journal.done(taken)
        assert bodies(drain(journal)) == [body(2)]


def test_seal_waits_for_the_first_frame(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        timer = threading.Timer(0.05, append, (journal, body(1)))
        timer.start()
        taken = journal.seal(bytes_max=1, timeout_s=30)
        timer.join()
    assert taken is not None
    assert bodies(taken.frames) == [body(1)]


def test_close_wakes_a_waiting_seal(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    timer = threading.Timer(0.05, journal.close)
    timer.start()
    assert journal.seal(bytes_max=1, timeout_s=30) is None
    timer.join()


async def test_many_senders_share_commits(tmp_path: Path) -> None:
    with opened(tmp_path, group_ms=2) as journal:
        await asyncio.gather(*(journal.append("t", "traces", 1, body(number)) for number in range(500)))
        stats = journal.stats()
        assert stats.frames_committed == 500
        assert stats.commits < 50
        assert sorted(bodies(drain(journal))) == sorted(body(number) for number in range(500))


async def test_a_sender_that_goes_away_disturbs_nobody(tmp_path: Path) -> None:
    with opened(tmp_path, group_ms=50) as journal:
        gone = asyncio.ensure_future(journal.append("t", "traces", 1, body(1)))
        stays = asyncio.ensure_future(journal.append("t", "traces", 1, body(2)))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        assert bodies(drain(journal)) == [body(1), body(2)]


async def test_a_request_the_database_cannot_hold_fails_alone_and_the_journal_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as journal:
        with pytest.raises(OverloadedError):
            await journal.append("lone surrogate \ud800", "traces", 1, body(1))
        clock.pass_s(2)
        await journal.append("t", "traces", 1, body(2))
        assert bodies(drain(journal)) == [body(2)]


async def test_senders_beyond_the_waiting_bytes_are_refused_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, waiting_bytes_max=10 * KIB, group_ms=100) as journal:
        senders = [asyncio.ensure_future(journal.append("t", "traces", 1, body(number, 1000))) for number in range(30)]
        results = await asyncio.gather(*senders, return_exceptions=True)
        refused = [result for result in results if isinstance(result, OverloadedError)]
        assert len(refused) == 21  # 1,000 bytes and the row around them, nine times
        assert journal.stats().refused["waiting"] == 21
        assert len(drain(journal)) == 9
        await journal.append("t", "traces", 1, body(1))


async def test_a_request_larger_than_the_waiting_bytes_is_taken_when_nothing_waits(tmp_path: Path) -> None:
    with opened(tmp_path, waiting_bytes_max=1000) as journal:
        await journal.append("t", "traces", 1, body(1, 5000))
        assert len(drain(journal)) == 1


def test_drained_files_are_deleted_with_their_side_files(tmp_path: Path) -> None:
    with opened(tmp_path, file_bytes_max=64 * KIB) as journal:
        for number in range(10):
            append(journal, body(number, 40_000))
        assert len(data_files(tmp_path)) >= 4
        drain(journal)
        assert len(data_files(tmp_path)) <= 1
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "state.db"}


def test_a_file_with_an_open_range_stays(tmp_path: Path) -> None:
    with opened(tmp_path, file_bytes_max=64 * KIB) as journal:
        append(journal, body(0, 70_000))
        held = take(journal)
        for number in range(1, 5):
            append(journal, body(number, 70_000))
        drain(journal)
    assert len(data_files(tmp_path)) == 1
    with opened(tmp_path) as journal:
        assert take(journal) == held


def test_bodies_are_written_once(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *(body(number, 100_000) for number in range(50)))
        journal.seal(bytes_max=1, timeout_s=0)
    (path,) = data_files(tmp_path)
    wal = path.with_name(path.name + "-wal")
    assert path.stat().st_size <= 16 * KIB, "closing a file must not copy its WAL into it"
    assert 5_000_000 < wal.stat().st_size < 5_500_000


def test_notes_survive_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.set_meta("watermark", "17")
        journal.set_meta("watermark", "18")
        assert journal.get_meta("watermark") == "18"
    with opened(tmp_path) as journal:
        assert journal.get_meta("watermark") == "18"
        assert journal.get_meta("other") is None


def test_after_close_everything_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(OverloadedError, match="closed"):
        append(journal, body(1))


async def test_close_commits_what_waits(tmp_path: Path) -> None:
    journal = opened(tmp_path, group_ms=1000)
    sender = asyncio.ensure_future(journal.append("t", "traces", 1, body(1)))
    await asyncio.sleep(0.01)
    journal.close()
    await sender
    with opened(tmp_path) as journal:
        assert bodies(drain(journal)) == [body(1)]


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from spanwise.journal import SqliteJournalConfig, JournalError\n"
        "try: SqliteJournalConfig().build(Path(sys.argv[1]))\n"
        "except JournalError as error: print(error)\n"
    )
    with opened(tmp_path):
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout
        with pytest.raises(JournalError):
            opened(tmp_path)
    assert "has it open; stop it or choose another directory" in said
    with opened(tmp_path):
        pass


def test_pending_bytes_are_what_is_not_yet_sealed_also_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path, file_bytes_max=40 * KIB) as journal:
        for number in range(5):
            append(journal, body(number, 20_000))
        taken = take(journal, bytes_max=20_000)
        assert (taken.bytes, journal.pending_bytes) == (20_000, 80_000)
    with opened(tmp_path) as journal:
        assert journal.pending_bytes == 80_000
        drain(journal)
        assert journal.pending_bytes == 0


def test_stats_follow_a_request_through_the_journal(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as journal:
        assert journal.stats().oldest_age_s == 0
        append(journal, body(1, 1000), body(2, 1000))
        clock.pass_s(5)
        waiting = journal.stats()
        taken = take(journal, bytes_max=1000)
        clock.pass_s(5)
        sealed = journal.stats()
        journal.done(taken)
        drain(journal)
        empty = journal.stats()
    assert (waiting.frames_pending, waiting.ranges_open, waiting.oldest_age_s) == (2, 0, 5.0)
    assert (waiting.frames_committed, waiting.bytes_committed, waiting.files) == (2, 2000, 1)
    assert (sealed.frames_pending, sealed.ranges_open, sealed.oldest_age_s) == (1, 1, 10.0)
    assert (empty.frames_pending, empty.ranges_open, empty.oldest_age_s) == (0, 0, 0.0)


def test_a_file_larger_than_the_cap_is_a_configuration_error() -> None:
    with pytest.raises(ValidationError, match="file_bytes_max"):
        SqliteJournalConfig(bytes_max=MIB, file_bytes_max=2 * MIB)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="fsync"):
        config(fsync=False)
