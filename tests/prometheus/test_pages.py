"""Pages of signatures are there, and their queries work on a server where every failure has happened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processors.detect import SignaturesConfig
from spanwise.budgets import SIGNATURE as BUDGET
from spanwise.detector import DetectConfig
from spanwise.drift import QualityDrift
from tests.prometheus.rules import RUNBOOKS, alerts
from tests.running import RunningServer
from tests.shared import ROOT

DOCS = ROOT / "docs"
PAGES = DOCS / "signatures"
SIGNATURES = [*(signature.name for signature in SignaturesConfig().build()), QualityDrift.name, BUDGET]
KINDS = {signature.name: [kind for kind in signature.kinds if kind] for signature in DetectConfig().build()}
MODES = ["Tool misuse", "Context degradation", "Goal drift", "Retry loops", "Cascading errors", "Silent quality loss"]
HEADINGS = ["What it looks for", "Why it matters", "What it cannot show", "Options", "Alerts", "Confirm", "Do"]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def queries() -> list[tuple[str, str]]:
    """(page and number, SQL) of every query in the pages."""
    paths = [*sorted(PAGES.glob("*.md")), DOCS / "prometheus.md"]
    blocks = [(path.stem, re.findall(r"(?m)^```sql\n(.*?)^```", text(path), re.DOTALL)) for path in paths]
    return [(f"{page}-{number}", sql) for page, found in blocks for number, sql in enumerate(found, start=1)]


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_has_a_page_with_what_people_need(name: str) -> None:
    page = text(PAGES / f"{name}.md")
    assert page.startswith(f"# {name}\n")
    assert [heading for heading in [*HEADINGS, "Silence or tune"] if f"\n## {heading}\n" not in page] == []
    assert [kind for kind in KINDS.get(name, []) if f"`{kind}`" not in page] == []
    assert page.count("```sql") >= 2


def test_the_list_of_signatures_is_complete() -> None:
    linked = re.findall(r"\]\((\w+)\.md\)", text(PAGES / "README.md"))
    assert set(linked) >= {path.stem for path in PAGES.glob("*.md")} - {"README"}


def test_the_list_covers_each_of_the_six_failure_modes() -> None:
    readme = text(PAGES / "README.md")
    modes = [
        "Tool misuse",
        "Context degradation",
        "Goal drift",
        "Retry loops",
        "Cascading errors",
        "Silent quality loss",
    ]
    rows = {mode: re.search(rf"(?m)^\| {mode} \|.*$", readme) for mode in modes}
    assert [mode for mode, row in rows.items() if row is None or ".md)" not in row.group()] == []


def anchors(path: Path) -> list[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", text(path))
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("name", alerts())
def test_the_runbook_of_an_alert_exists(name: str) -> None:
    path, _, anchor = alerts()[name]["annotations"]["runbook_url"].removeprefix(RUNBOOKS).partition("#")
    assert not anchor or anchor in anchors(ROOT / path)


@pytest.mark.parametrize("path", [*sorted(PAGES.glob("*.md")), DOCS / "prometheus.md"], ids=lambda path: path.stem)
def test_links_of_a_page_lead_somewhere(path: Path) -> None:
    links = [link.partition("#") for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text(path))]
    found = [(path.parent / to if to else path, anchor) for to, _, anchor in links]
    assert [to for to, anchor in found if not to.exists() or (anchor and anchor not in anchors(to))] == []


@pytest.mark.parametrize(("where", "sql"), queries(), ids=[where for where, _ in queries()])
def test_a_query_of_a_runbook_answers(server: RunningServer, where: str, sql: str) -> None:
    assert server.sql(sql), "returns no row although every failure has happened"
