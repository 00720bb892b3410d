"""The pipeline's promises: nothing is forgotten before it is stored, nothing that cannot be stored stops the rest.

Journal, decoder and sink are scripted here because the real ones cannot be made to fail on demand; that the real ones
work together is shown by `tests/end_to_end`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from spanwise.model import CONTENT, LOG_EVENTS, SPANS
from spanwise.pipeline import DeadLetterFiles, Pacer, Pipeline, PipelineConfig
from spanwise.stage import Frame, Processor, RejectedError, SealedRange

POISON = b"poison"


def _frame(seq: int, body: bytes = b"good") -> Frame:
    return Frame(seq, "default", 1_795_000_000_000_000_000 + seq, "traces", 1, body)


@dataclass
class ScriptedJournal:
    """Hands out the given ranges once and remembers which were forgotten."""

    ranges: list[SealedRange]
    forgotten: list[str] = field(default_factory=list)
    pending_bytes: int = 0
    fails: int = 0

    async def append(self, tenant: str, signal: str, items: int, body: bytes) -> None:
        raise NotImplementedError

    def seal(self, *, bytes_max: int, timeout_s: float) -> SealedRange | None:
        if self.fails:
            self.fails -= 1
            raise OSError("cannot record the range")
        if self.ranges:
            return self.ranges.pop(0)
        time.sleep(0.005)
        return None

    def done(self, taken: SealedRange) -> None:
        self.forgotten.append(taken.token)

    def close(self) -> None:
        pass


@dataclass
class _Decoded:
    spans: pa.RecordBatch
    content: pa.RecordBatch
    log_events: pa.RecordBatch
    rejects: list[tuple[int, int, str]] = field(default_factory=list)
    rejected: int = 0
    ignored_logs: int = 0


class ScriptedDecoder:
    """One empty span row a frame; a frame that holds POISON breaks the whole call."""

    def __init__(self, breaks_together: bool = False) -> None:
        self.breaks_together = breaks_together

    def decode(self, frames: Sequence[tuple[str, int, str, bytes]]) -> _Decoded:
        if any(body == POISON for *_, body in frames) or (self.breaks_together and len(frames) > 1):
            raise ValueError("cannot decode")
        rows = [{"tenant": tenant, "span_id": f"{at:016x}"} for tenant, at, _, _ in frames]
        return _Decoded(
            pa.RecordBatch.from_pylist(rows, schema=SPANS.arrow),
            pa.RecordBatch.from_pylist([], schema=CONTENT.arrow),
            pa.RecordBatch.from_pylist([], schema=LOG_EVENTS.arrow),
        )


@dataclass
class ScriptedSink:
    """Raises the given errors one after the other, then stores."""

    errors: list[Exception] = field(default_factory=list)
    stored: list[tuple[str, int]] = field(default_factory=list)
    refuses: int = 0

    def write(self, token: str, spans: pa.RecordBatch, content: pa.RecordBatch, log_events: pa.RecordBatch) -> int:
        if self.errors:
            raise self.errors.pop(0)
        self.stored.append((token, spans.num_rows - self.refuses))
        return self.refuses


@dataclass
class Observed:
    dead: list[tuple[int, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def decoded(self, **_: object) -> None: ...
    def processed(self, spans: pa.RecordBatch, *, seconds: float) -> None: ...
    def inserted(self, **_: object) -> None: ...

    def insert_failed(self, *, reason: str) -> None:
        self.failed.append(reason)

    def dead_lettered(self, *, frames: int, reason: str) -> None:
        self.dead.append((frames, reason))


@dataclass
class Bench:
    """A running pipeline with its scripted neighbours."""

    journal: ScriptedJournal
    sink: ScriptedSink
    observed: Observed
    pipeline: Pipeline
    letters: Path
    told: list[int]

    def run_until(self, condition: Callable[[], bool]) -> None:
        self.pipeline.start()
        deadline = time.monotonic() + 10
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.pipeline.stop(10)
        assert condition()


def _bench(
    tmp_path: Path,
    *ranges: SealedRange,
    sink: ScriptedSink | None = None,
    breaks_together: bool = False,
    processors: Sequence[Processor] = (),
) -> Bench:
    journal, observed, told = ScriptedJournal(list(ranges)), Observed(), list[int]()
    sink = sink or ScriptedSink()
    config = PipelineConfig(retry_max_s=0.1, batch_age_s=0)
    pipeline = Pipeline(
        config,
        journal=journal,
        decoder=ScriptedDecoder(breaks_together),  # type: ignore[arg-type]
        processors=processors,
        sink=sink,
        observer=observed,
        dead_letters=DeadLetterFiles(tmp_path / "dead", 3),
        clock=time.monotonic,
        on_stored=lambda spans, _logs: told.append(spans.num_rows),
        rows_version="v1",
    )
    return Bench(journal, sink, observed, pipeline, tmp_path / "dead", told)


def test_a_range_is_stored_announced_and_then_forgotten(tmp_path: Path) -> None:
    bench = _bench(tmp_path, SealedRange("f:1-2", (_frame(1), _frame(2))))

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-2"])

    assert bench.sink.stored == [("f:1-2:v1", 2)]
    assert bench.told == [2]


def test_a_store_that_fails_is_asked_again_with_the_same_token(tmp_path: Path) -> None:
    sink = ScriptedSink(errors=[OSError("down"), TimeoutError("slow")])
    bench = _bench(tmp_path, SealedRange("f:1-1", (_frame(1),)), sink=sink)

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-1"])

    assert bench.sink.stored == [("f:1-1:v1", 1)]
    assert bench.observed.failed == ["OSError", "TimeoutError"]


def test_stopping_while_the_store_is_down_forgets_nothing(tmp_path: Path) -> None:
    sink = ScriptedSink(errors=[OSError("down")] * 10_000)
    bench = _bench(tmp_path, SealedRange("f:1-1", (_frame(1),)), SealedRange("f:2-2", (_frame(2),)), sink=sink)

    bench.run_until(lambda: len(bench.observed.failed) > 1)

    assert bench.journal.forgotten == []


def test_a_frame_that_breaks_the_decoder_is_set_aside_and_the_others_are_stored(tmp_path: Path) -> None:
    bench = _bench(tmp_path, SealedRange("f:1-3", (_frame(1), _frame(2, POISON), _frame(3))))

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-3"])

    assert bench.sink.stored == [("f:1-3:v1", 2)]
    assert [path.read_bytes() for path in bench.letters.iterdir()] == [POISON]
    assert bench.observed.dead == [(1, "decode")]


def test_frames_that_decode_alone_but_not_together_are_kept_as_files(tmp_path: Path) -> None:
    bench = _bench(tmp_path, SealedRange("f:1-2", (_frame(1), _frame(2))), breaks_together=True)

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-2"])

    assert len(list(bench.letters.iterdir())) == 2
    assert bench.sink.stored == []


def test_a_stage_that_breaks_on_a_request_sets_it_aside_and_goes_on(tmp_path: Path) -> None:
    def picky(batch: pa.RecordBatch) -> pa.RecordBatch:
        if any(str(value).endswith("2") for value in batch["span_id"].to_pylist()):
            raise KeyError("a stage of ours")
        return batch

    bench = _bench(tmp_path, SealedRange("f:1-3", (_frame(1), _frame(2), _frame(3))), processors=[picky])

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-3"])

    assert bench.observed.dead == [(1, "decode")]
    assert bench.sink.stored == [("f:1-3:v1", 2)]


def test_a_journal_that_cannot_record_a_range_is_asked_again(tmp_path: Path) -> None:
    bench = _bench(tmp_path, SealedRange("f:1-1", (_frame(1),)))
    bench.journal.fails = 1

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-1"])

    assert bench.sink.stored == [("f:1-1:v1", 1)]


def test_a_range_the_store_rejects_is_set_aside_and_does_not_stop_the_next(tmp_path: Path) -> None:
    sink = ScriptedSink(errors=[RejectedError("value out of range")])
    bench = _bench(tmp_path, SealedRange("f:1-1", (_frame(1),)), SealedRange("f:2-2", (_frame(2),)), sink=sink)

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-1", "f:2-2"])

    assert bench.sink.stored == [("f:2-2:v1", 1)]
    assert bench.observed.dead == [(1, "store")]


def test_requests_with_single_rows_the_store_refuses_are_kept_as_files(tmp_path: Path) -> None:
    bench = _bench(tmp_path, SealedRange("f:1-2", (_frame(1), _frame(2))), sink=ScriptedSink(refuses=1))

    bench.run_until(lambda: bench.journal.forgotten == ["f:1-2"])

    assert bench.sink.stored == [("f:1-2:v1", 1)]
    assert bench.observed.dead == [(2, "rows")]


def test_rows_that_nobody_can_be_told_about_are_stored_and_do_not_stop_the_next(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise ValueError("cannot remember these")

    bench = _bench(tmp_path, SealedRange("f:1-1", (_frame(1),)), SealedRange("f:2-2", (_frame(2),)))
    bench.pipeline._on_stored = fail
    bench.run_until(lambda: bench.journal.forgotten == ["f:1-1", "f:2-2"])
    assert bench.sink.stored == [("f:1-1:v1", 1), ("f:2-2:v1", 1)]


def test_dead_letters_keep_the_newest(tmp_path: Path) -> None:
    letters = DeadLetterFiles(tmp_path, keep=3)

    for seq in range(5):
        letters.put(SealedRange("f:1-5", ()), _frame(seq, str(seq).encode()), "decode")

    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("pending", "elapsed_s", "expected_s"), [(0, 0.3, 0.5), (99, 0.3, 0.5), (100, 0.3, 0.0), (1, 0.8, 0.0), (1, 7, 0.0)]
)
def test_the_pacer_gathers_by_age_and_bytes(pending: int, elapsed_s: float, expected_s: float) -> None:
    now = [100.0]
    pacer = Pacer(PipelineConfig.model_construct(batch_bytes=100, batch_age_s=0.8), lambda: now[0])
    pacer.took()
    now[0] += elapsed_s

    assert pacer.remaining_s(pending) == pytest.approx(expected_s)


def test_the_first_data_after_a_pause_is_taken_at_once() -> None:
    assert Pacer(PipelineConfig(), time.monotonic).remaining_s(1) == 0


def test_threads_end_when_asked(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    before = threading.active_count()

    bench.pipeline.start()

    assert bench.pipeline.stop(5)
    assert threading.active_count() == before
