"""Every signature keeps the contract that users' own are held to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from processors.detect import SignaturesConfig
from processors.detect.custom import PythonSignatureConfig
from processors.detect.signature import Bools, Found, Signature
from processors.detect.steps import ErrorClass, Finish, Flag, Kind, Steps, Trace
from spanwise.detector import DetectConfig
from spanwise.testing import Span, agent, check_signature, model, tool

FAILING = [tool("search", f"cats {n % 2}", "Error: no", error_text="no", span_id=n + 1) for n in range(6)]
TRACES: list[list[Span]] = [
    [tool("search", "cats", "nothing", empty=True) for _ in range(4)] + [model("done")],
    [model(flags=Flag.TOOL_CALLS), *FAILING, model("all good")],
    [tool(name, "same", "ok") for _ in range(4) for name in ("open", "close")],
    [model("again") for _ in range(4)] + [model("", empty=True), model("", empty=True)],
    [agent("helper", "find the report", None) for _ in range(4)],
    [
        model(flags=Flag.UNKNOWN_TOOL),
        model(finish=Finish.LENGTH, flags=Flag.TOOL_CALLS),
        model(finish=Finish.MALFORMED),
    ],
    [model(input_tokens=n, input_items=i, first_input=3) for i, n in enumerate((3_000, 4_000, 1_500, 9_500), start=1)],
    [model(None, failed=True, error=ErrorClass.CONTEXT), model(finish=Finish.CONTEXT_WINDOW)],
    [
        agent("planner", "go", failed=True, span_id=1),
        agent("worker", "go", failed=True, span_id=2, parent_id=1),
        tool("fetch", "u", "x", error_text="refused", span_id=3, parent_id=2),
    ],
    [agent("runner", "go", "stopped", flags=Flag.RUN_LIMIT)],
    [agent("planner", "book a flight", "done"), *(tool(f"t{n // 5}", f"x {n}", "y") for n in range(15))],
]


@pytest.mark.parametrize("signature", SignaturesConfig().build(), ids=lambda signature: signature.name)
def test_every_signature_keeps_the_contract(signature: Signature) -> None:
    check_signature(signature, *TRACES)


def test_the_name_of_a_signature_is_its_option() -> None:
    assert sorted(SignaturesConfig.model_fields) == [signature.name for signature in SignaturesConfig().build()]


def test_a_signature_can_be_switched_off() -> None:
    config = SignaturesConfig.model_validate({"goal_drift": {"enabled": False}})
    assert "goal_drift" not in [signature.name for signature in config.build()]


class Slow:
    """A signature as a user writes it: tools that take long."""

    name: ClassVar[str] = "slow_tool"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, seconds: float = 5) -> None:
        self._ns = int(seconds * 1e9)

    def candidates(self, steps: Steps) -> Bools:
        found: Bools = steps.is_kind(Kind.TOOL) & (steps["end"] - steps["start"] > self._ns)
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        slow = [call for call in trace.of_kind(Kind.TOOL) if call.end - call.start > self._ns]
        if slow:
            yield Found(kind="", severity="info", steps=tuple(call.index for call in slow), count=len(slow))


class Forgetful(Slow):
    """Its candidates do not cover what it finds."""

    def candidates(self, steps: Steps) -> Bools:
        return np.zeros(len(steps.rows), dtype=np.bool_)


def test_a_signature_of_a_user_is_named_in_the_configuration() -> None:
    config = DetectConfig.model_validate({"custom": [{"path": f"{__name__}:Slow", "options": {"seconds": 2}}]})
    assert config.build()[-1].name == "slow_tool"
    check_signature(config.build()[-1], [tool("deploy", "x", "y", start=0, end=9 * 10**9)], *TRACES)


def test_the_contract_is_told_apart_from_code_that_breaks_it() -> None:
    with pytest.raises(AssertionError, match="finds without a candidate"):
        check_signature(Forgetful(), [tool("deploy", "x", "y", start=0, end=9 * 10**9)])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing", "is not written like package.module:Class"),
        ("no.such.module:Class", "cannot be built: ModuleNotFoundError"),
        (f"{__name__}:Missing", "cannot be built: AttributeError"),
        ("collections:OrderedDict", "is no signature: it has no name, kinds, version, candidates, find"),
    ],
)
def test_a_class_that_is_no_signature_stops_the_start_with_a_sentence(path: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PythonSignatureConfig(path=path)


def test_two_signatures_of_one_name_stop_the_start() -> None:
    rule = {"name": "retry_loop", "where": [{"column": "kind", "value": "tool"}]}
    with pytest.raises(ValidationError, match="two signatures have the name retry_loop"):
        DetectConfig.model_validate({"rules": [rule]})
