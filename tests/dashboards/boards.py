"""The dashboards as they are shipped, and every query in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deploy.grafana.generate import FOLDER

BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}


@dataclass(frozen=True)
class Question:
    """A query of a dashboard: of a panel, or of a variable (`kind` "variable")."""

    board: str
    title: str
    kind: str
    sql: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.board}: {self.title}"


def _questions() -> Iterator[Question]:
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                if "rawSql" in target:
                    unit = panel["fieldConfig"]["defaults"].get("unit", "")
                    yield Question(name, panel["title"], panel["type"], target["rawSql"], unit)
        for variable in board["templating"]["list"]:
            if "rawSql" in (query := variable.get("query")):
                yield Question(name, f"${variable['name']}", "variable", query["rawSql"])


EVERY_QUESTION = list(_questions())
QUESTIONS = [
    one for at, one in enumerate(EVERY_QUESTION) if one.sql not in {other.sql for other in EVERY_QUESTION[:at]}
]
"""Each once: dashboards share their variables."""


def question(board: str, title: str) -> Question:
    return next(one for one in EVERY_QUESTION if (one.board, one.title) == (board, title))
