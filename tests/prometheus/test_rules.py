"""Alerting rules: they load, raise what they promise and nothing else, and say who should do what."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from processors.detect import SignaturesConfig
from spanwise.budgets import SIGNATURE as BUDGET
from spanwise.drift import QualityDrift
from tests.prometheus.rules import (
    DEFAULT_RULES,
    FOLDER,
    RULE_FILES,
    RUNBOOKS,
    SEVERITIES,
    TEST_FILES,
    alerts,
    installed,
    metric_names,
    read,
    rules,
)

SIGNATURES = [*(signature.name for signature in SignaturesConfig().build()), QualityDrift.name, BUDGET]
ALERTS = alerts()


def run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    promtool = installed("promtool")
    run(promtool, "check", "rules", *RULE_FILES)
    run(promtool, "check", "config", FOLDER / "prometheus.yml")


def test_alertmanager_takes_its_configuration() -> None:
    run(installed("amtool"), "check-config", FOLDER / "alertmanager.yml")


@pytest.mark.parametrize(
    ("severity", "receiver"), [("info", "nobody"), ("warning", "chat"), ("high", "on-call"), ("critical", "on-call")]
)
def test_an_alert_goes_to_those_its_severity_concerns(severity: str, receiver: str) -> None:
    routes = ("config", "routes", "test", "--config.file", FOLDER / "alertmanager.yml")
    run(installed("amtool"), *routes, f"--verify.receivers={receiver}", f"severity={severity}", "alertname=SpanwiseAny")


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_alerts_are_raised_when_they_should_be_and_not_otherwise(path: Path) -> None:
    run(installed("promtool"), "test", "rules", path)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_both_raised_and_silent(name: str) -> None:
    """`promtool` says nothing of rules that no test mentions."""
    checks = [
        check for path in TEST_FILES for test in read(path)["tests"] for check in test.get("promql_expr_test", [])
    ]
    mine = [check["exp_samples"] for check in checks if f'alertname="{name}"' in check["expr"]]
    assert any(mine), "is never expected to be raised"
    assert not all(mine), "is never expected to be silent"


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_has_an_alert_that_leads_to_its_page(name: str) -> None:
    leading = [rule for rule in ALERTS.values() if rule["annotations"]["runbook_url"].endswith(f"signatures/{name}.md")]
    assert leading
    assert all(f'signature="{name}"' in rule["expr"] or rule["labels"]["signature"] == name for rule in leading)


def test_a_hint_about_goals_raises_no_alert_by_default() -> None:
    assert not [rule for rule in rules(*DEFAULT_RULES) if "goal_drift" in re.sub(r'signature!~"[^"]*"', "", str(rule))]


def test_the_alert_for_own_signatures_leaves_out_the_ones_with_alerts_of_their_own() -> None:
    (names,) = re.findall(r'signature!~"([^"]*)"', ALERTS["SpanwiseOwnSignature"]["expr"])
    assert set(names.split("|")) >= set(SIGNATURES)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_one_of_the_severities_of_findings_or_that_of_its_finding(name: str) -> None:
    rule = ALERTS[name]
    stated = rule.get("labels", {}).get("severity")
    if stated is None:
        assert "severity" in rule["expr"]
        assert metric_names(rule["expr"]) <= {"spanwise:findings:active5m", "spanwise:quality_drift:active15m"}
    else:
        assert stated in SEVERITIES


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_happened_and_what_to_read(name: str) -> None:
    annotations: dict[str, Any] = ALERTS[name]["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert not annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"].startswith(RUNBOOKS)


def test_names_of_agents_stand_in_no_command_that_people_paste() -> None:
    """They come from senders."""
    for rule in ALERTS.values():
        commands = re.findall("`([^`]*)`", rule["annotations"]["description"])
        assert not [command for command in commands if "{{" in command]
