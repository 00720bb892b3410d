"""The dashboard Agent."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from deploy.grafana.boards.common import (
    AGENTS,
    BEGAN,
    COST_BAR,
    COUNT,
    FAILED_STEPS,
    FINDING,
    OUTCOME,
    QUANTILES,
    SERVICES,
    SEVERITIES,
    SOURCE,
    SUCCESS_STEPS,
    TENANTS,
    TO_FAILURES,
    TO_MODEL,
    TO_TOOL,
    TRACE_ID,
    USD,
)
from deploy.grafana.panels import ORANGE, RED, Column, Dashboard, Row, bars, lines, stat, table

_ONE_AGENT: Final = replace(AGENTS, multi=False)

AGENT: Final = Dashboard(
    "spanwise-agent",
    "Spanwise / Agent",
    "One agent: its runs, what they cost, what fails, and which version changed it.",
    (
        Row(
            "$agent",
            (
                stat("Runs", "Invocations of the agent that began in the time range.", "runs"),
                stat(
                    "Failed runs",
                    "Share of runs that ended in an error. No data without runs.",
                    "failed_runs",
                    "percentunit",
                    steps=FAILED_STEPS,
                ),
                stat("p95 run", "95th percentile of the duration of a run, at most 1 % off.", "p95_run", "ns"),
                stat(
                    "Cost per run",
                    "Cost of all its work, divided by its runs. No data without runs or a known price.",
                    "cost_per_run",
                    "currencyUSD",
                ),
                stat(
                    "Tokens per run", "Input and output tokens of all its work, divided by its runs.", "tokens_per_run"
                ),
                stat(
                    "Findings",
                    "Failures of severity warning or worse.",
                    "found",
                    steps={1: ORANGE},
                    links=[TO_FAILURES],
                ),
            ),
        ),
        Row(
            "Over time",
            (
                bars("Runs", "Runs by outcome. A bar is the sum of its interval.", "runs_over_time", colors=OUTCOME),
                lines(
                    "Duration of runs",
                    "The line breaks where there were no runs.",
                    "run_duration",
                    "ns",
                    colors=QUANTILES,
                ),
                bars("Cost by model", "A bar is the sum of its interval.", "cost_by_model", "currencyUSD"),
                lines(
                    "Success",
                    "Share of its model and tool calls that succeeded. The line breaks where there were none.",
                    "success",
                    "percentunit",
                    maximum=1,
                ),
                bars("Findings", "Failures by signature, at the time they began.", "found_over_time"),
                lines(
                    "Calls per run",
                    "How much an agent works for one run: growth here is a loop, or a harder task.",
                    "calls_per_run",
                    "short",
                ),
            ),
        ),
        Row(
            "Versions, models, tools",
            (
                table(
                    "Versions",
                    "The newest first: what changed with it.",
                    "versions",
                    {
                        "First": BEGAN,
                        "Runs": COUNT,
                        "Failed": Column("percentunit", 80, steps=FAILED_STEPS, decimals=1),
                        "Mean run": Column("ns", 100),
                        "Tool success": Column("percentunit", 110, steps=SUCCESS_STEPS, decimals=1),
                        "Tokens per run": Column("short", 120),
                        "Cost per run": Column("currencyUSD", 110),
                        "Findings": COUNT,
                        "Findings per run": Column("short", 130, decimals=2),
                    },
                    height=6,
                ),
                table(
                    "Models",
                    "Models it calls.",
                    "models",
                    {
                        "Model": Column(links=(TO_MODEL,)),
                        "Calls": COUNT,
                        "Failed": Column("percentunit", 80, steps=FAILED_STEPS, decimals=1),
                        "Mean": Column("ns", 100),
                        "Tokens": COUNT,
                        "Cost": COST_BAR,
                    },
                    width=14,
                ),
                table(
                    "Tools",
                    "Tools it calls.",
                    "tools",
                    {
                        "Tool": Column(links=(TO_TOOL,)),
                        "Calls": COUNT,
                        "Success": Column("percentunit", 90, steps=SUCCESS_STEPS, decimals=1),
                        "Mean": Column("ns", 100),
                    },
                    width=10,
                ),
            ),
        ),
        Row(
            "Look closer",
            (
                table(
                    "Latest findings",
                    "The last 50, with their evidence.",
                    "latest_findings",
                    {
                        "Began": BEGAN,
                        "Severity": Column(width=90, colors=SEVERITIES),
                        "Finding": FINDING,
                        "Times": Column("short", 70),
                        "Wasted": USD,
                        "Trace": TRACE_ID,
                        "Evidence": Column(wrap=True, width=420),
                    },
                    empty="no findings in this time range",
                ),
                table(
                    "Latest traces",
                    "The last 50 traces the agent took part in; their figures are of the whole trace.",
                    "latest_traces",
                    {
                        "Began": BEGAN,
                        "Trace": TRACE_ID,
                        "Duration": Column("ns", 100),
                        "Model calls": Column("short", 100),
                        "Tool calls": Column("short", 90),
                        "Errors": Column("short", 80, steps={1: RED}),
                        "Cost": USD,
                    },
                ),
            ),
        ),
    ),
    (SOURCE, TENANTS, SERVICES, _ONE_AGENT),
)
