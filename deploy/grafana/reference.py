"""`docs/dashboards.md`, made from the dashboards themselves."""

from __future__ import annotations

from typing import Final

from deploy.grafana.boards import DASHBOARDS
from deploy.grafana.panels import PLUGIN_VERSION, Dashboard

_HEAD: Final = f"""# Dashboards

`deploy/grafana/dashboards/` has {{number}} Grafana dashboards; the steps to see them are in the
[README](../README.md#see-it-in-grafana). All but the last read ClickHouse through the official data source
(`grafana-clickhouse-datasource` 4, made for {PLUGIN_VERSION}, which asks for Grafana 11.6 or newer): the embedded
store or a server, the queries are the same. They read the view `rollup` and the tables `traces` and `findings`, and
never the spans of minutes that are counted already; only the page of one trace reads its spans.

- **Figures are exact**: tokens and cost add up to the same sums as the spans, each call counted once. Quantiles are at
  most 1 % off. Whole minutes are counted: the first minute of a time range is in if it begins in it.
- **Unknown is not zero**: a share, a duration or a cost of nothing, or without a known price, is "no data". Bars are
  sums of their interval, and an interval without a bar had nothing; lines break where nothing was measured.
- **Choices are kept** when you go from one dashboard to another, as is the time range. "(none)" chooses what has
  no agent, service or model.
- **An agent's work** is what its spans did and all below them, down to the next agent, also where those spans do not
  name it (view `rollup_agents`). Percentiles are the exception: with an agent chosen, those of model and tool calls are
  of calls that name it themselves.
- **Links**: an agent, model, tool, signature or trace in a table leads to its page. `Runbooks` on the page of failures
  says where your copy of `docs/signatures` is served.

The dashboards are generated: change `deploy/grafana/boards/` and `deploy/grafana/sql/`, run
`python -m deploy.grafana.generate` and `python -m docs.generate`. A test compares both with what is stored.

What is tested: every query is expanded as Grafana and the data source do and run against the embedded engine, on
traffic of the demo and on made data, with and without rows, with odd names; the files are read with Grafana's own
schema (Foundation SDK 11.6; type-checked with `@grafana/schema` 13.2 when they were written). `make grafana` asks all
of them through the libraries that the data source is made of (clickhouse-go over HTTP with gzip, the plugin SDK's
frames and its turn from long to wide series). What is not: the pictures. No test starts a Grafana, and the data
source's own expansion of macros is rebuilt from its documentation.

`make bench` prints how long each panel takes on one million spans.
"""


def dashboard_reference() -> str:
    """The page: every dashboard, its variables and what each panel means."""
    parts = [_HEAD.format(number=len(DASHBOARDS))]
    parts += [_section(name, one) for name, one in DASHBOARDS.items()]
    return "\n".join(parts)


def _section(name: str, dashboard: Dashboard) -> str:
    lines = [
        f"## {dashboard.title.removeprefix('Spanwise / ')}",
        "",
        f"{dashboard.description} `{name}.json`, uid `{dashboard.uid}`.",
        "",
        "| choose | what |",
        "|---|---|",
        *(f"| {one.label} | {one.description} |" for one in dashboard.variables),
        "",
        "| panel | what it shows |",
        "|---|---|",
        *(f"| {panel.title} | {panel.description} |" for row in dashboard.rows for panel in row.panels),
        "",
    ]
    return "\n".join(lines)
