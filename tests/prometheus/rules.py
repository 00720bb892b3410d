"""The shipped rules, as the tests read them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.shared import ROOT
from tests.tools import from_debian

FOLDER: Final = ROOT / "deploy" / "prometheus"
DEFAULT_RULES: Final = sorted(FOLDER.glob("rules/*.yml"))
RULE_FILES: Final = [*DEFAULT_RULES, *sorted(FOLDER.glob("optional/*.yml"))]
TEST_FILES: Final = sorted(FOLDER.glob("tests/*.yml"))
RUNBOOKS: Final = "https://spanwise.example/"
SEVERITIES: Final = ("info", "warning", "high", "critical")


@functools.cache
def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def rules(*paths: Path) -> Iterator[dict[str, Any]]:
    for path in paths or RULE_FILES:
        for group in read(path)["groups"]:
            yield from group["rules"]


def alerts(*paths: Path) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(*paths) if "alert" in rule}


def metric_names(expression: str) -> set[str]:
    """Names of series in an expression, those of recording rules included."""
    plain = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    return set(re.findall(r"\b(?:up|(?:spanwise|process)[_:][a-zA-Z0-9_:]+)\b", plain))


def installed(name: str) -> str:
    """Where a program is; the test is skipped if it can be neither found nor fetched."""
    return from_debian(name, "prometheus" if name in ("prometheus", "promtool") else "prometheus-alertmanager")
