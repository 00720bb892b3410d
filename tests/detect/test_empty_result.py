from __future__ import annotations

from processors.detect.empty_result import EmptyResultConfig
from processors.detect.steps import Kind
from spanwise.testing import found, model, span, tool

SIGNATURE = EmptyResultConfig().build()


def nothing(query: str, name: str = "search") -> dict[str, object]:
    return tool(name, query, "[]", empty=True)


def test_a_search_that_finds_nothing_is_information() -> None:
    (finding,) = found(SIGNATURE, nothing("cats"), tool("search", "dogs", "3 dogs"), model("dogs"))
    assert (finding.severity, finding.count, finding.steps) == ("info", 1, (0,))
    assert finding.evidence == {"empty": 1, "calls": 2, "last_call_before_the_answer": "no"}


def test_an_answer_on_nothing_is_a_warning() -> None:
    (finding,) = found(SIGNATURE, nothing("cats"), model("There are 12 cats"))
    assert finding.severity == "warning"


def test_three_empty_results_are_a_warning_even_before_the_end() -> None:
    (finding,) = found(SIGNATURE, nothing("a"), nothing("b"), nothing("c"), tool("x", "y", "z"), ended=False)
    assert (finding.severity, finding.count) == ("warning", 3)


def test_each_tool_is_a_finding_of_its_own() -> None:
    assert [f.steps for f in found(SIGNATURE, nothing("a"), nothing("b", "lookup"), tool("x", "1", "2"))] == [
        (0,),
        (1,),
    ]


def test_a_tool_that_answers_with_silence_by_design_is_not_empty() -> None:
    assert found(SIGNATURE, tool("think", "hm", "", empty=True), model("done")) == []


def test_a_failed_call_is_not_called_empty() -> None:
    assert found(SIGNATURE, tool("search", "cats", "[]", empty=True, failed=True), model("none")) == []


def test_a_retrieval_that_finds_nothing_is_one_too() -> None:
    (finding,) = found(SIGNATURE, span(Kind.RETRIEVAL, "knowledge", "cats", "[]", empty=True), model("There are none"))
    assert (finding.severity, finding.count) == ("warning", 1)
