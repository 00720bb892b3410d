"""`spanwise failures --watch`: what is there, what comes, and what comes after the server was away."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from spanwise.cli.client import Client, CommandError
from spanwise.cli.look import watch_failures


def finding(name: str, count: int = 3) -> dict[str, Any]:
    texts = ("service", "agent_name", "tool_name", "model")
    return {
        **dict.fromkeys(texts, ""),
        "finding_id": name,
        "detected_at": "2026-11-21T08:30:00+00:00",
        "severity": "high",
        "signature": name,
        "kind": "",
        "basis": "exact",
        "count": count,
        "wasted_tokens": 0,
        "wasted_cost_usd": Decimal("0.000000001"),
        "trace_id": "ab" * 16,
    }


class Server(Client):
    """Answers one look after another, and then the person at the terminal presses Ctrl-C."""

    def __init__(self, *looks: list[dict[str, Any]] | CommandError) -> None:
        super().__init__("http://localhost")
        self._looks = iter(looks)

    def get(self, path: str, member: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        look = next(self._looks, None)
        if look is None:
            raise KeyboardInterrupt
        if isinstance(look, CommandError):
            raise look
        return {member: look}


def watched(*looks: list[dict[str, Any]] | CommandError, limit: int = 20, as_json: bool = False) -> str:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        watch_failures(Server(*looks), {"limit": limit}, out, as_json=as_json, sleep=lambda _s: None)
    return out.getvalue()


def test_what_is_new_or_grew_is_shown_once() -> None:
    old, new = finding("old_loop"), finding("new_loop")

    table, _, rest = watched([old], [new, old], [new, finding("old_loop", 7)], [new, old]).partition("\n2026")

    assert table.startswith("found")
    shown = rest.splitlines()
    assert [row.split()[3] for row in shown[1:]] == ["new_loop", "old_loop"]
    assert "old_loop × 7" in shown[2]


def test_what_is_found_between_two_looks_is_never_left_out() -> None:
    """The table shows the newest; what it had no room for is not new afterwards."""
    many = [finding(f"loop_{n}") for n in range(5)]

    shown = watched(many, [finding("last"), *many], limit=2)

    assert [name for name in (*(f"loop_{n}" for n in range(5)), "last") if name in shown] == [
        "loop_0",
        "loop_1",
        "last",
    ]


def test_json_is_a_finding_a_line_with_exact_money() -> None:
    lines = watched([finding("old")], [finding("new"), finding("old")], as_json=True).splitlines()

    assert [json.loads(line)["finding_id"] for line in lines] == ["old", "new"]
    assert json.loads(lines[0], parse_float=Decimal)["wasted_cost_usd"] == Decimal("0.000000001")


def test_a_server_that_goes_away_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    gone = CommandError("no Spanwise server answers at http://localhost", "start one")

    shown = watched([], gone, gone, CommandError("the store does not answer", status=503), [finding("late")])

    assert "late × 3" in shown
    assert capsys.readouterr().err.splitlines()[1:] == [
        "no Spanwise server answers at http://localhost; waiting for it"
    ]


def test_a_refusal_ends_the_watch() -> None:
    refused = CommandError("the token is not known", status=401)

    with pytest.raises(CommandError, match="the token is not known"):
        watch_failures(Server([], refused), {"limit": 20}, io.StringIO(), as_json=False, sleep=lambda _s: None)
