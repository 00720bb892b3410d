"""Write `dashboards/*.json`: a test compares each with what `python -m deploy.grafana.generate` would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploy.grafana.boards import DASHBOARDS
from deploy.grafana.panels import Json, dashboard_json
from deploy.grafana.queries import load

FOLDER: Final = Path(__file__).with_name("dashboards")


def dashboards() -> dict[str, Json]:
    """Every dashboard as the JSON that Grafana reads, by file name without its ending."""
    variables = load("variables")
    return {
        name: dashboard_json(one, variables if one.prometheus else variables | load(name))
        for name, one in DASHBOARDS.items()
    }


def text(dashboard: Json) -> str:
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, dashboard in dashboards().items():
        (FOLDER / f"{name}.json").write_text(text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
