"""The parts of a Grafana dashboard: variables, panels and their place, as the JSON that Grafana reads.

Every panel says what it shows in a sentence and what it shows when there is nothing: a figure that cannot be known is
"no data", never 0. Panels name their query; `definitions` reads it from the SQL file of the dashboard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

CLICKHOUSE: Final[Json] = {"type": "grafana-clickhouse-datasource", "uid": "${datasource}"}
PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "${prometheus}"}

PLUGIN_VERSION: Final = "4.20.0"
"""Of the ClickHouse data source: queries without a version, or of one before 4, are migrated when they are opened."""

GREEN, YELLOW, ORANGE, RED = "green", "#EAB839", "orange", "red"
_GRID: Final = 24

_FORMATS: Final = {"timeseries": 0, "table": 1, "traces": 3}
"""Numbers of the plugin's answer formats, see `sqlds.FormatQueryOption`."""


@dataclass(frozen=True)
class Link:
    """A data link: where a click on a value leads."""

    title: str
    url: str
    new_tab: bool = False

    def json(self) -> Json:
        return {"title": self.title, "url": self.url, "targetBlank": self.new_tab}


@dataclass(frozen=True)
class Column:
    """How a column of a table is shown; columns that are not named here are shown as they are."""

    unit: str = ""
    width: int | None = None
    links: tuple[Link, ...] = ()
    steps: Mapping[float, str] = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    decimals: int | None = None
    bar: bool = False
    wrap: bool = False

    def json(self, name: str) -> Json:
        properties: list[Json] = []

        def add(id_: str, value: object) -> None:
            properties.append({"id": id_, "value": value})

        if self.unit:
            add("unit", self.unit)
        if self.decimals is not None:
            add("decimals", self.decimals)
        if self.width is not None:
            add("custom.width", self.width)
        if self.links:
            add("links", [link.json() for link in self.links])
        if self.steps:
            add("thresholds", thresholds(self.steps))
            add("custom.cellOptions", {"type": "color-text"})
        if self.colors:
            add("mappings", [value_colors(self.colors)])
            add("custom.cellOptions", {"type": "color-text"})
        if self.bar:
            add("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"})
            add("min", 0)
        if self.wrap:
            add("custom.wrapText", True)  # Grafana 13
            add("custom.cellOptions", {"type": "auto", "wrapText": True})  # and before
        return {"matcher": {"id": "byName", "options": name}, "properties": properties}


@dataclass(frozen=True)
class Panel:
    """One panel: Grafana's type, its query or queries, its size in grid units and what it shows."""

    type: str
    title: str
    description: str
    queries: tuple[str, ...]
    """Names of sections of the dashboard's SQL file, or PromQL expressions."""
    width: int
    height: int
    format: str = "table"
    legends: tuple[str, ...] = ()
    """PromQL only: the name of each query's series."""
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard that its queries use."""

    name: str
    label: str
    description: str
    query: str = ""
    """Name of a section of the SQL file, or a PromQL `label_values`. '' for a text box or a data source."""
    kind: str = "query"
    multi: bool = True
    default: str = ""
    plugin: str = ""
    """kind datasource: the plugin to choose from."""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `uid` is a public interface, as links of other people point to it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    prometheus: bool = False
    time_from: str = "now-6h"
    refresh: str = "1m"


# Panels


def stat(
    title: str,
    description: str,
    query: str,
    unit: str = "short",
    *,
    steps: Mapping[float, str] | None = None,
    decimals: int | None = None,
    width: int = 4,
    links: Sequence[Link] = (),
    empty: str = "no data",
) -> Panel:
    """One number."""
    return Panel(
        "stat",
        title,
        description,
        (query,),
        width,
        4,
        defaults={
            "unit": unit,
            "noValue": empty,
            "color": {"mode": "thresholds"},
            "thresholds": thresholds(steps or {}, base="text" if not steps else GREEN),
            **({"decimals": decimals} if decimals is not None else {}),
            **({"links": [link.json() for link in links]} if links else {}),
        },
        options={
            "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
            "graphMode": "none",
            "colorMode": "value",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
    )


def bars(
    title: str,
    description: str,
    query: str,
    unit: str = "short",
    *,
    colors: Mapping[str, str] | None = None,
    width: int = 12,
    height: int = 8,
    links: Sequence[Link] = (),
) -> Panel:
    """Sums by interval, stacked. A bar is the sum of its interval, an interval without a bar had nothing."""
    return _time_series(
        title,
        description,
        (query,),
        unit,
        {
            "drawStyle": "bars",
            "lineWidth": 0,
            "fillOpacity": 80,
            "showPoints": "never",
            "stacking": {"mode": "normal", "group": "A"},
            "axisSoftMin": 0,
        },
        ["sum"],
        colors,
        width,
        height,
        links,
    )


def lines(
    title: str,
    description: str,
    query: str,
    unit: str,
    *,
    colors: Mapping[str, str] | None = None,
    steps: Mapping[float, str] | None = None,
    maximum: float | None = None,
    width: int = 12,
    height: int = 8,
    links: Sequence[Link] = (),
) -> Panel:
    """A value by interval. The line is broken where there was nothing to measure."""
    panel = _time_series(
        title,
        description,
        (query,),
        unit,
        {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 0,
            "showPoints": "auto",
            "pointSize": 4,
            "spanNulls": False,
            "axisSoftMin": 0,
            **({"thresholdsStyle": {"mode": "line"}} if steps else {}),
        },
        ["mean", "max"],
        colors,
        width,
        height,
        links,
    )
    if steps:
        panel.defaults["thresholds"] = thresholds(steps, base="transparent")
    if maximum is not None:
        panel.defaults["max"] = maximum
    return panel


def _time_series(
    title: str,
    description: str,
    queries: tuple[str, ...],
    unit: str,
    custom: Json,
    calcs: list[str],
    colors: Mapping[str, str] | None,
    width: int,
    height: int,
    links: Sequence[Link],
) -> Panel:
    return Panel(
        "timeseries",
        title,
        description,
        queries,
        width,
        height,
        format="timeseries",
        defaults={
            "unit": unit,
            "min": 0,
            "noValue": "no data",
            "color": {"mode": "palette-classic"},
            "custom": custom,
            **({"links": [link.json() for link in links]} if links else {}),
        },
        overrides=tuple(series_color(name, color) for name, color in (colors or {}).items()),
        options={
            "legend": {"displayMode": "table", "placement": "right", "showLegend": True, "calcs": calcs}
            if width > 8
            else {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": True},
        },
        interval="1m",
    )


def table(
    title: str,
    description: str,
    query: str,
    columns: Mapping[str, Column],
    *,
    width: int = 24,
    height: int = 8,
    empty: str = "nothing in this time range",
) -> Panel:
    """Rows, sorted by the query."""
    return Panel(
        "table",
        title,
        description,
        (query,),
        width,
        height,
        defaults={"noValue": empty, "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}},
        overrides=tuple(column.json(name) for name, column in columns.items()),
        options={"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
    )


def metric(
    title: str,
    description: str,
    queries: Mapping[str, str],
    unit: str,
    *,
    width: int = 12,
    height: int = 8,
    steps: Mapping[float, str] | None = None,
    stacked: bool = False,
    maximum: float | None = None,
) -> Panel:
    """Lines from Prometheus: legend format to expression."""
    panel = lines(title, description, "", unit, width=width, height=height, steps=steps, maximum=maximum)
    if stacked:
        panel.defaults["custom"].update(stacking={"mode": "normal", "group": "A"}, fillOpacity=30)
    return Panel(
        panel.type,
        panel.title,
        panel.description,
        tuple(queries.values()),
        width,
        height,
        legends=tuple(queries),
        defaults=panel.defaults,
        options=panel.options,
    )


def metric_stat(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    steps: Mapping[float, str] | None = None,
    width: int = 4,
    colors: Mapping[str, str] | None = None,
) -> Panel:
    """One number from Prometheus."""
    panel = stat(title, description, expression, unit, steps=steps, width=width)
    if colors:
        panel.defaults["mappings"] = [value_colors(colors)]
    return panel


# Their parts


def thresholds(steps: Mapping[float, str], base: str = GREEN) -> Json:
    return {
        "mode": "absolute",
        "steps": [
            {"color": base, "value": None},
            *({"color": color, "value": value} for value, color in sorted(steps.items())),
        ],
    }


def value_colors(colors: Mapping[str, str]) -> Json:
    """Values shown in colours; `value=text` shows a text instead of the value."""
    options = {}
    for index, (key, color) in enumerate(colors.items()):
        value, _, text = key.partition("=")
        options[value] = {"color": color, "index": index, **({"text": text} if text else {})}
    return {"type": "value", "options": options}


def series_color(name: str, color: str) -> Json:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
    }


# Dashboards


def dashboard_json(dashboard: Dashboard, queries: Mapping[str, str]) -> Json:
    """The dashboard as Grafana provisions it. `queries` has the SQL of its panels and variables by name."""
    panels: list[Json] = []
    y = 0
    for row in dashboard.rows:
        panels.append(_row_json(row.title, len(panels) + 1, y))
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > _GRID:
                x, y, height = 0, y + height, 0
            panels.append(_panel_json(panel, queries, len(panels) + 1, x, y, prometheus=dashboard.prometheus))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    made = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["spanwise"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "timezone": "browser",
        "time": {"from": dashboard.time_from, "to": "now"},
        "timepicker": {},
        "refresh": dashboard.refresh,
        "weekStart": "",
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Spanwise",
                "tags": ["spanwise"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "dashboard",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": [_variable_json(one, queries, dashboard) for one in dashboard.variables]},
        "panels": panels,
    }
    return _with_variables_kept(made, [one.name for one in dashboard.variables])


KEPT: Final = "{kept}"
_KEPT: Final = ("datasource", "tenant", "service", "agent", "model")


def _with_variables_kept(made: Json, names: Sequence[str]) -> Json:
    """Fill in `KEPT`: what is chosen here, for links to dashboards that have the same variables."""

    def keep(link: re.Match[str]) -> str:
        kept = (name for name in _KEPT if name in names and f"&var-{name}=" not in link[0])
        return link[0].replace(KEPT, "&".join(["${__url_time_range}", *(f"${{{name}:queryparam}}" for name in kept)]))

    filled: Json = json.loads(re.sub(rf'"/d/[^"]*{re.escape(KEPT)}[^"]*"', keep, json.dumps(made)))
    return filled


def _row_json(title: str, id_: int, y: int) -> Json:
    grid = {"h": 1, "w": _GRID, "x": 0, "y": y}
    return {"type": "row", "id": id_, "title": title, "collapsed": False, "panels": [], "gridPos": grid}


def _panel_json(panel: Panel, queries: Mapping[str, str], id_: int, x: int, y: int, *, prometheus: bool) -> Json:
    source = PROMETHEUS if prometheus else CLICKHOUSE
    targets = []
    for index, query in enumerate(panel.queries):
        target: Json = {"refId": chr(ord("A") + index), "datasource": source}
        if prometheus:
            target |= {"expr": query, "editorMode": "code", "instant": panel.type == "stat"}
            target |= {"range": panel.type != "stat", "legendFormat": panel.legends[index] if panel.legends else ""}
        else:
            target |= {
                "pluginVersion": PLUGIN_VERSION,
                "editorType": "sql",
                "queryType": panel.format,
                "format": _FORMATS[panel.format],
                "rawSql": queries[query],
            }
        targets.append(target)
    return {
        "type": panel.type,
        "id": id_,
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "targets": targets,
        "fieldConfig": {"defaults": panel.defaults, "overrides": list(panel.overrides)},
        "options": panel.options,
        **({"interval": panel.interval} if panel.interval else {}),
    }


def _variable_json(variable: Variable, queries: Mapping[str, str], dashboard: Dashboard) -> Json:
    common: Json = {
        "name": variable.name,
        "label": variable.label,
        "description": variable.description,
        "type": variable.kind,
        "hide": 0,
        "skipUrlSync": False,
    }
    if variable.kind == "datasource":
        return common | {"query": variable.plugin, "multi": False, "includeAll": False, "refresh": 1, "regex": ""}
    if variable.kind == "textbox":
        chosen = {"selected": True, "text": variable.default, "value": variable.default}
        return common | {"query": variable.default, "current": chosen, "options": [chosen]}
    if dashboard.prometheus:
        source, query = PROMETHEUS, {"query": variable.query, "refId": variable.name, "qryType": 1}
    else:
        source, query = CLICKHOUSE, {"editorType": "sql", "rawSql": queries[variable.query]}
    everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return common | {
        "datasource": source,
        "query": query,
        "multi": variable.multi,
        "includeAll": variable.multi,
        "refresh": 2,  # when the time range changes
        "regex": "",
        "sort": 0,
        "options": [],
        **({"current": everything} if variable.multi else {}),
    }
