"""The generated part of the pages of signatures, between two marks: their options, and the alerts that lead to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from processors.detect import SignaturesConfig
from spanwise.config import options_table

_PAGES: Final = Path(__file__).parent / "signatures"
_RULES: Final = Path(__file__).parents[1] / "deploy" / "prometheus"
_MARKED: Final = re.compile(r"<!-- generated: options and alerts -->.*<!-- end -->", re.DOTALL)

SECTIONS: Final = {name: f"detect.signatures.{name}" for name in sorted(SignaturesConfig.model_fields)} | {
    "budget": "budgets[]",
    "quality_drift": "quality_drift",
}
"""Where the options of each signature are."""


def signature_page(name: str) -> str:
    """`docs/signatures/<name>.md` as it is, with its generated part made anew. Raises ValueError if it has none."""
    text = (_PAGES / f"{name}.md").read_text(encoding="utf-8")
    parts = ["<!-- generated: options and alerts -->", "## Options", options_table(SECTIONS[name])]
    parts += ["## Alerts", _alerts_table(name), "<!-- end -->"]
    page, marks = _MARKED.subn(lambda _: "\n\n".join(parts), text)
    if marks != 1:
        raise ValueError(f"docs/signatures/{name}.md needs one part between the marks, it has {marks}")
    return page


def _alerts_table(signature: str) -> str:
    lines = ["| Alert | Severity | Raised when |", "|---|---|---|"]
    for path in sorted([*_RULES.glob("rules/*.yml"), *_RULES.glob("optional/*.yml")]):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            lines += [_alert(rule) for rule in group["rules"] if _is_about(rule, signature)]
    return "\n".join(lines)


def _is_about(rule: dict[str, Any], signature: str) -> bool:
    url: str = rule.get("annotations", {}).get("runbook_url", "")
    return url.endswith(f"/docs/signatures/{signature}.md")


def _alert(rule: dict[str, Any]) -> str:
    severity = rule.get("labels", {}).get("severity", "that of the finding")
    expression = " ".join(rule["expr"].split()).replace("|", "\\|").replace("( ", "(").replace(" )", ")")
    lasting = f" for {rule['for']}" if "for" in rule else ""
    return f"| `{rule['alert']}` | {severity} | `{expression}`{lasting} |"
