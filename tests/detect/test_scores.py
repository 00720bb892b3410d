"""What the signatures are worth on labelled traces. `make bench-detect` prints the figures."""

from __future__ import annotations

from bench.score import OURS, PUBLISHED, score_loops, score_spans
from tests.detect.corpus import needs_corpus

BAR = 0.95


@needs_corpus()
def test_retry_loops_are_found_and_nothing_else() -> None:
    scores, hard = score_loops()
    assert scores[OURS][""].precision >= BAR
    assert scores[OURS][""].recall >= BAR
    assert hard[OURS] == 0


@needs_corpus()
def test_no_published_rule_finds_loops_better_on_any_source() -> None:
    scores, _ = score_loops()
    for rule in PUBLISHED:
        for source, score in scores[rule].items():
            assert scores[OURS][source].f1 >= score.f1, (rule, source)
        assert scores[OURS][""].f1 > scores[rule][""].f1, rule


@needs_corpus()
def test_failed_and_empty_tool_results_are_told_from_good_ones() -> None:
    for name, groups in score_spans().items():
        assert groups[""].precision >= BAR, name
        assert groups[""].recall >= BAR, name
