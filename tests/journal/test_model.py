"""Any sequence of appends, seals, dones, restarts, crashes and damage behaves like a list of requests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from spanwise.journal import SqliteJournal
from spanwise.stage import SealedRange
from tests.journal.build import KIB, MEMORY, append, bodies, body, crash_copy, opened


class JournalModel(RuleBasedStateMachine):
    """The model: requests in order, of which a prefix is taken; open ranges; every token ever seen."""

    ranges = Bundle("ranges")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=MEMORY))
        self.generation = 0
        self.next = 0
        self.untaken: list[bytes] = []
        self.open: dict[str, SealedRange] = {}
        self.again: list[str] = []
        self.tokens: dict[str, SealedRange] = {}
        self.journal = self.start()

    @property
    def directory(self) -> Path:
        return self.home / str(self.generation)

    def start(self) -> SqliteJournal:
        return opened(self.directory, file_bytes_max=100 * KIB, cache_bytes_max=20 * KIB)

    @rule(sizes=st.lists(st.sampled_from([0, 10, 3000, 30_000, 120_000]), min_size=1, max_size=6))
    def append_together(self, sizes: list[int]) -> None:
        sent = [body(self.next + position, size) for position, size in enumerate(sizes)]
        self.next += len(sent)
        append(self.journal, *sent)
        self.untaken += sent

    @rule(target=ranges, bytes_max=st.sampled_from([1, 5000, 50_000, 1 << 20]))
    def seal(self, bytes_max: int) -> str:
        taken = self.journal.seal(bytes_max=bytes_max, timeout_s=0)
        if taken is None:
            assert not self.untaken
            assert not self.again
            return ""
        assert self.tokens.setdefault(taken.token, taken) == taken, "a token names other frames than before"
        if self.again:
            assert taken.token == self.again.pop(0), "open ranges come first, in order"
        else:
            got = bodies(taken.frames)
            assert got == self.untaken[: len(got)]
            assert taken.bytes <= bytes_max or len(got) == 1
            del self.untaken[: len(got)]
        self.open[taken.token] = taken
        return taken.token

    @rule(token=consumes(ranges))
    def done(self, token: str) -> None:
        if token in self.open and token not in self.again:
            self.journal.done(self.open.pop(token))

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = self.start()
        self.again = self._in_file_order()

    @rule()
    def crash(self) -> None:
        crashed = self.home / str(self.generation + 1)
        crash_copy(self.journal, self.directory, crashed)
        self.journal.close()
        self.generation += 1
        self.journal = self.start()
        self.again = self._in_file_order()

    def _in_file_order(self) -> list[str]:
        def place(token: str) -> tuple[str, int]:
            name, _, span = token.partition(":")
            return name, int(span.partition("-")[0])

        return sorted(self.open, key=place)

    @invariant()
    def figures_agree(self) -> None:
        stats = self.journal.stats()
        assert stats.frames_pending == len(self.untaken)
        assert self.journal.pending_bytes == sum(len(each) for each in self.untaken)
        assert stats.ranges_open == len(self.open)
        assert stats.damaged_files == 0

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.home)


JournalModel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestJournalModel = JournalModel.TestCase
