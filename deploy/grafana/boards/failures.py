"""The dashboard Failures."""

from __future__ import annotations

from typing import Final

from deploy.grafana.boards.common import (
    BEGAN,
    COUNT,
    FILTERS,
    FINDING,
    SEVERITIES,
    SUCCESS_STEPS,
    TO_AGENT,
    TO_TOOL,
    TRACE_ID,
    USD,
    VALUE,
    opened,
)
from deploy.grafana.panels import RED, Column, Dashboard, Link, Row, Variable, bars, stat, table

_SIGNATURE: Final = Variable("signature", "Signature", "What was found.", "choose_signatures")
_SEVERITY: Final = Variable("severity", "Severity", "How bad it is.", "choose_severities")

FAILURES: Final = Dashboard(
    "spanwise-failures",
    "Spanwise / Failures",
    "What goes wrong although every run answers: findings, their evidence, what they wasted, and what to do.",
    (
        Row(
            "Now",
            (
                stat("Findings", "Failures that began in the time range, as filtered.", "found"),
                stat("High or critical", "The part of them that is worth an alert.", "severe", steps={1: RED}),
                stat("Traces affected", "Traces with at least one of them.", "traces_hit"),
                stat("Agents affected", "Agents with at least one of them.", "agents_hit"),
                stat(
                    "Wasted cost",
                    "Cost of the work that was for nothing, as far as its price is known. A span that two findings "
                    "blame counts twice.",
                    "wasted_cost",
                    "currencyUSD",
                ),
                stat("Wasted tokens", "Tokens of the work that was for nothing.", "wasted_tokens"),
            ),
        ),
        Row(
            "Over time",
            (
                bars("By signature", "Findings by what was found, at the time they began.", "by_signature"),
                bars("By severity", "Findings by how bad they are.", "by_severity", colors=SEVERITIES),
                bars("Wasted cost by agent", "Cost of work that was for nothing.", "wasted_by_agent", "currencyUSD"),
                bars(
                    "Failed calls",
                    "Calls that ended in an error, by class of span; not every one is a finding, and not every "
                    "finding has one. Signature and severity do not apply.",
                    "failed_calls",
                ),
            ),
        ),
        Row(
            "What",
            (
                table(
                    "Signatures",
                    "What was found, the worst first. A click on a signature shows only that one; `What to do` opens "
                    "its page.",
                    "signatures",
                    {
                        "Signature": Column(
                            links=(opened("Only this signature", "spanwise-failures", signature=VALUE),)
                        ),
                        "Severity": Column(width=90, colors=SEVERITIES),
                        "Findings": COUNT,
                        "Occurrences": Column("short", 110),
                        "Agents": COUNT,
                        "Wasted tokens": Column("short", 120),
                        "Wasted": USD,
                        "Last": Column("dateTimeFromNow", 140),
                        "Runbook": Column(
                            width=110,
                            links=(Link("What to do", "${docs}/${__data.fields.Signature}.md", new_tab=True),),
                        ),
                    },
                ),
                table(
                    "Latest findings",
                    "The last 100, with the numbers that made them fire. `exact` is proven by the spans, `proxy` is "
                    "a hint that needs a look. A click on the trace opens it.",
                    "latest",
                    {
                        "Began": BEGAN,
                        "Severity": Column(width=90, colors=SEVERITIES),
                        "Finding": FINDING,
                        "Agent": Column(links=(TO_AGENT,)),
                        "Times": Column("short", 70),
                        "Wasted": USD,
                        "Basis": Column(width=80),
                        "Trace": TRACE_ID,
                        "Evidence": Column(wrap=True, width=420),
                    },
                    height=12,
                    empty="no findings in this time range",
                ),
            ),
        ),
        Row(
            "Where",
            (
                table(
                    "Agents and versions",
                    "Findings by agent and version: a new version that stands out is a regression.",
                    "versions",
                    {
                        "Agent": Column(links=(TO_AGENT,)),
                        "Findings": COUNT,
                        "Wasted": USD,
                        "Last": Column("dateTimeFromNow", 140),
                    },
                    width=14,
                ),
                table(
                    "Failing tools",
                    "Tools with failed calls. Signature, severity and model do not apply.",
                    "tools",
                    {
                        "Tool": Column(links=(TO_TOOL,)),
                        "Calls": COUNT,
                        "Failed": COUNT,
                        "Success": Column("percentunit", 90, steps=SUCCESS_STEPS, decimals=1),
                    },
                    width=10,
                    empty="no tool failed",
                ),
            ),
        ),
    ),
    (
        *FILTERS,
        _SIGNATURE,
        _SEVERITY,
        Variable(
            "docs",
            "Runbooks",
            "Where your copy of `docs/signatures` is served.",
            kind="textbox",
            default="https://spanwise.example/docs/signatures",
        ),
    ),
)
