"""The dashboard Trace."""

from __future__ import annotations

from typing import Final

from deploy.grafana.boards.common import BEGAN, COUNT, FINDING, SEVERITIES, SOURCE, TENANTS, TO_AGENT, TRACE_ID, USD
from deploy.grafana.panels import RED, Column, Dashboard, Panel, Row, Variable, stat, table

TRACE: Final = Dashboard(
    "spanwise-trace",
    "Spanwise / Trace",
    "One trace: what was found in it, with the evidence, and every step.",
    (
        Row(
            "Trace $trace_id",
            (
                stat("Cost", "Of the whole trace. No data if nothing of it has a known price.", "cost", "currencyUSD"),
                stat("Duration", "From its first start to its last end.", "duration", "ns"),
                stat("Model calls", "Without repeats by a second instrumentation.", "model_calls"),
                stat("Tool calls", "Spans of tools.", "tool_calls"),
                stat("Tokens", "Input and output, each call counted once.", "tokens"),
                stat("Errors", "Spans with an error.", "errors", steps={1: RED}),
                table(
                    "About",
                    "The summary, recounted a few seconds after spans arrive.",
                    "about",
                    {"Began": BEGAN, "Spans": COUNT},
                    height=4,
                    empty="no such trace: give 32 hex digits, or choose one below",
                ),
                table(
                    "Findings",
                    "What was found, the worst first, with the spans and numbers that show it.",
                    "found",
                    {
                        "Severity": Column(width=90, colors=SEVERITIES),
                        "Finding": FINDING,
                        "Basis": Column(width=80),
                        "Agent": Column(links=(TO_AGENT,)),
                        "Times": Column("short", 70),
                        "Wasted tokens": Column("short", 120),
                        "Wasted": USD,
                        "Spans": Column(wrap=True, width=180),
                        "Evidence": Column(wrap=True, width=480),
                    },
                    height=7,
                    empty="nothing was found",
                ),
                Panel(
                    "traces",
                    "Spans",
                    "The first 2,000 spans as a tree, with all their attributes; long values are cut to 200 "
                    "characters.",
                    ("spans",),
                    24,
                    14,
                    format="traces",
                ),
                table(
                    "Steps",
                    "Model, tool, agent and retrieval spans in order, with what went in and out. Cost counts where "
                    "usage is `own`; `aggregate` repeats other spans.",
                    "steps",
                    {
                        "Began": BEGAN,
                        "Kind": Column(width=90),
                        "Duration": Column("ns", 90),
                        "Error": Column(width=110, colors={}),
                        "Input": Column("short", 80),
                        "Output": Column("short", 80),
                        "Cost": USD,
                        "Usage": Column(width=90),
                        "Went in": Column(wrap=True, width=300),
                        "Came out": Column(wrap=True, width=300),
                    },
                    height=14,
                ),
            ),
        ),
        Row(
            "Choose a trace",
            (
                table(
                    "Latest traces",
                    "The last 20 that began in the time range.",
                    "latest",
                    {
                        "Began": BEGAN,
                        "Trace": TRACE_ID,
                        "Duration": Column("ns", 100),
                        "Errors": Column("short", 80, steps={1: RED}),
                        "Cost": USD,
                    },
                ),
            ),
        ),
    ),
    (
        SOURCE,
        TENANTS,
        Variable("trace_id", "Trace", "Trace id, 32 lower-case hex digits.", kind="textbox"),
    ),
)
