from __future__ import annotations

import math

import pytest

from processors.detect.context_limit import ContextLimitConfig
from processors.detect.output_truncated import OutputTruncatedConfig
from processors.detect.steps import ErrorClass, Finish, Flag
from spanwise.testing import SECOND, START, Span, agent, found, model, tool

SIGNATURE = ContextLimitConfig().build()
TRUNCATED = OutputTruncatedConfig().build()


def talk(*inputs: int, output: str = "word " * 200, items: int = 1, window: int = 0) -> list[Span]:
    """A conversation: each call has two messages more than the one before and this many input tokens."""
    return [
        model(output, input_tokens=tokens, input_items=items + 2 * n, first_input=5, window=window)
        for n, tokens in enumerate(inputs)
    ]


def kinds(*spans: Span, ended: bool = True) -> list[str]:
    return [finding.kind for finding in found(SIGNATURE, *spans, ended=ended)]


def test_a_refused_request_is_an_overflow_counted_where_it_was_raised() -> None:
    (finding,) = found(
        SIGNATURE,
        agent("worker", "go", failed=True, error=ErrorClass.CONTEXT, span_id=1, start=START, end=START + 9 * SECOND),
        model(None, failed=True, error=ErrorClass.CONTEXT, span_id=2, parent_id=1, window=8_192),
    )
    assert (finding.kind, finding.severity, finding.steps) == ("overflow_error", "high", (1,))
    assert finding.evidence == {"errors": 1, "window_tokens": 8_192}


def test_a_second_refusal_is_critical() -> None:
    calls = [model(None, failed=True, error=ErrorClass.CONTEXT) for _ in range(2)]
    assert [finding.severity for finding in found(SIGNATURE, *calls)] == ["critical"]


def test_a_rate_limit_is_no_overflow() -> None:
    assert kinds(model(None, failed=True, error=ErrorClass.RATE_LIMIT)) == []


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (model(finish=Finish.CONTEXT_WINDOW), ["window_reached"]),
        (model(finish=Finish.LENGTH, input_tokens=700, output_tokens=290, window=1_000), ["window_reached"]),
        (model(finish=Finish.LENGTH, input_tokens=700, output_tokens=200, window=1_000), []),
        (model(finish=Finish.LENGTH, input_tokens=700, output_tokens=290), []),
    ],
    ids=["said so", "by the counts", "output limit", "window unknown"],
)
def test_a_full_window_is_told_from_an_output_limit(call: Span, expected: list[str]) -> None:
    assert kinds(call) == expected
    truncated = bool(found(TRUNCATED, call))
    assert truncated == (not expected and bool(call["finish"] & Finish.LENGTH))


def test_pressure_rises_with_the_share_of_the_window() -> None:
    assert kinds(*talk(7_000, 7_999, window=10_000)) == []
    (warning,) = found(SIGNATURE, *talk(7_000, 8_000, window=10_000))
    assert (warning.kind, warning.severity, warning.steps) == ("pressure", "warning", (1,))
    (high,) = found(SIGNATURE, *talk(7_000, 8_000, 9_500, 9_000, window=10_000))
    assert (high.severity, high.evidence["share_of_window"]) == ("high", 0.95)


def test_a_growing_conversation_whose_input_falls_was_truncated_in_silence() -> None:
    (finding,) = found(SIGNATURE, *talk(3_000, 4_000, 2_050))
    assert (finding.kind, finding.severity, finding.steps) == ("silent_truncation", "high", (2,))
    assert finding.evidence == {
        "input_tokens_before": 4_000,
        "input_tokens_after": 2_050,
        "messages_before": 3,
        "messages_after": 5,
    }


def test_an_input_that_stands_still_while_text_is_added_was_truncated() -> None:
    assert kinds(*talk(2_000, 4_090, 4_085, 4_093)) == ["silent_truncation"]


def sized(calls: list[Span], *recorded: int) -> list[Span]:
    """The same calls with so many bytes of recorded input."""
    return [call | {"input_size": round(8 * math.log2(size))} for call, size in zip(calls, recorded, strict=True)]


def test_truncation_is_told_from_an_agent_that_sends_less_itself() -> None:
    calls = talk(3_000, 4_000, 2_050)
    assert kinds(*sized(calls, 12_000, 16_000, 18_000)) == ["silent_truncation"]
    assert kinds(*sized(calls, 12_000, 16_000, 9_000)) == []


def test_tokens_that_hold_all_that_was_recorded_lost_nothing() -> None:
    """Tool definitions that are not recorded and left out of the last call."""
    assert kinds(*sized(talk(3_000, 4_000, 2_050), 7_000, 8_000, 9_000)) == []


def test_a_tool_that_refuses_a_long_text_is_no_overflow() -> None:
    assert kinds(tool("translate", "a long text", "too long", failed=True, error=ErrorClass.CONTEXT), model()) == []


@pytest.mark.parametrize(
    "healthy",
    [
        talk(1_000, 1_300, 1_700, 2_200, 2_800),
        talk(120_000, 120_100, 120_220, 120_330, output="ok " * 10),
        talk(4_000, 3_500, 3_600),
        talk(900, 200, 100),
        [*talk(8_000, 12_000), *talk(3_000, items=1)],
        [
            *talk(8_000),
            model(input_tokens=2_000, input_items=9, first_input=5, flags=Flag.COMPACTION),
            model(input_tokens=2_300, input_items=11, first_input=5),
        ],
        [
            model(input_tokens=9_000, input_items=3, first_input=5, agent="a"),
            model(input_tokens=2_000, input_items=5, first_input=5, agent="b"),
        ],
        talk(9_000, -1, 9_500),
        [tool("read", "x", "the maximum context length is 8192 tokens"), model("context window exceeded, they said")],
    ],
    ids=[
        "grows",
        "grows slowly in a long context",
        "trimmed a little",
        "too small to tell",
        "starts over",
        "compacted",
        "another agent",
        "count unknown",
        "talks about it",
    ],
)
def test_healthy_conversations_are_not_truncated(healthy: list[Span]) -> None:
    assert "silent_truncation" not in kinds(*healthy)


def test_compaction_is_information() -> None:
    (finding,) = found(SIGNATURE, model(flags=Flag.COMPACTION), model(finish=Finish.COMPACTION))
    assert (finding.kind, finding.severity, finding.count) == ("compaction", "info", 2)


def test_a_summary_that_stays_in_the_history_is_one_compaction() -> None:
    calls = [model(flags=Flag.COMPACTION, input_items=items) for items in (3, 5, 7, 2, 4)]
    assert [finding.count for finding in found(SIGNATURE, model(input_items=40), *calls)] == [2]


def test_truncation_after_a_compaction_is_still_found() -> None:
    summarised = [call | {"flags": call["flags"] | Flag.COMPACTION} for call in talk(3_000, 4_000, 2_050)]
    assert "silent_truncation" in kinds(*summarised)


def test_an_answer_cut_off_once_is_information_and_twice_a_warning() -> None:
    cut = model(finish=Finish.LENGTH, output_tokens=100, max_tokens=100)
    (once,) = found(TRUNCATED, cut, model())
    assert (once.severity, once.evidence["at_the_requested_limit"]) == ("info", 1)
    (twice,) = found(TRUNCATED, cut, cut)
    assert (twice.severity, twice.count) == ("warning", 2)


def test_cut_off_tool_arguments_are_a_warning_at_once() -> None:
    (finding,) = found(TRUNCATED, model(finish=Finish.LENGTH, flags=Flag.TOOL_CALLS))
    assert finding.severity == "warning"
