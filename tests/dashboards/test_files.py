"""What is shipped for Grafana is current, is what Grafana understands, and holds together."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.generate import FOLDER, dashboards, text
from spanwise.telemetry import Telemetry
from tests.dashboards.boards import BOARDS
from tests.prometheus.rules import installed, metric_names

GRAFANA = FOLDER.parent


@pytest.mark.parametrize("name", dashboards())
def test_a_generated_dashboard_is_current(name: str) -> None:
    path = FOLDER / f"{name}.json"
    assert path.read_text(encoding="utf-8") == text(dashboards()[name]), "run `python -m deploy.grafana.generate`"


def test_no_dashboard_is_shipped_that_nothing_generates() -> None:
    assert BOARDS.keys() == dashboards().keys()


def lost(sent: Any, kept: Any, place: str = "") -> Iterator[str]:
    """Where something that was sent is not kept."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            yield from lost(value, kept[key], f"{place}/{key}") if key in kept else [f"{place}/{key}"]
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for index, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from lost(one, other, f"{place}[{index}]")
    elif sent != kept:
        yield f"{place}: {sent!r} became {kept!r}"


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_schema_knows_every_field(name: str) -> None:
    plugins.register_default_plugins()

    kept = json.loads(json.dumps(Dashboard.from_json(BOARDS[name]), cls=JSONEncoder))

    assert list(lost(BOARDS[name], kept)) == []


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARDS[name]["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    ids = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows_in_which_unit_and_what_nothing_looks_like(name: str) -> None:
    for panel in panels(BOARDS[name]):
        assert panel["description"].endswith("."), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] in {"stat", "timeseries"}:
            assert defaults["unit"] in {
                "short", "percentunit", "currencyUSD", "ns", "s", "bytes", "Bps", "cps",
            }, panel["title"]  # fmt: skip
        if panel["type"] != "traces":
            assert defaults["noValue"], panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_queries_name_only_variables_that_the_dashboard_has_and_quote_them(name: str) -> None:
    has = {variable["name"] for variable in BOARDS[name]["templating"]["list"]}
    for panel in panels(BOARDS[name]):
        assert panel["datasource"]["uid"].strip("${}") in has
        for target in panel["targets"]:
            query = target.get("rawSql", "")
            assert set(re.findall(r"\$\{(\w+)(?::\w+)?\}", query)) <= has, panel["title"]
            assert not re.search(r"\$\{\w+\}|'\$\{", query), f"{panel['title']} puts a variable into SQL unquoted"


def links(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("url"), str):
            yield node["url"]
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from links(one)


@pytest.mark.parametrize("name", BOARDS)
def test_links_lead_to_dashboards_that_have_the_variables_they_set(name: str) -> None:
    known = {board["uid"]: {one["name"] for one in board["templating"]["list"]} for board in BOARDS.values()}
    here = known[BOARDS[name]["uid"]]
    for url in filter(None, links(BOARDS[name]["panels"])):
        if not url.startswith("/d/"):
            continue
        uid, _, query = url.removeprefix("/d/").partition("?")
        assert set(re.findall(r"var-(\w+)=", query)) <= known[uid], url
        assert set(re.findall(r"\$\{(\w+):queryparam\}", query)) <= here, url
        assert "${__url_time_range}" in query
        assert all(value.endswith(":percentencode}") for value in re.findall(r"var-\w+=([^&]+)", query)), url


def test_uids_are_a_public_interface() -> None:
    assert sorted(board["uid"] for board in BOARDS.values()) == [
        "spanwise-agent",
        "spanwise-cost",
        "spanwise-failures",
        "spanwise-fleet",
        "spanwise-ingestion",
        "spanwise-model-tool",
        "spanwise-trace",
    ]


def expressions() -> dict[str, str]:
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for board in BOARDS.values()
        for panel in panels(board)
        for target in panel["targets"]
        if "expr" in target
    }


def test_expressions_name_only_metrics_that_spanwise_has() -> None:
    has = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
    for metric in Telemetry().reference:
        has |= {metric.name, f"{metric.name}_bucket"} if metric.type == "histogram" else {metric.name}

    for title, expression in expressions().items():
        assert metric_names(expression) <= has, title


def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    promtool = installed("promtool")
    chosen = {"__rate_interval": "1m", "job": "spanwise", "instance": ".+"}
    rules = [
        {"record": f"panel:{index}", "expr": re.sub(r"\$(\w+)", lambda name: chosen[name[1]], expression)}
        for index, expression in enumerate(expressions().values())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")

    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.mark.parametrize("environment", ["embedded.env", "server.env"])
def test_provisioning_finds_every_value_in_the_environment(environment: str) -> None:
    given = {
        line.partition("=")[0]
        for line in (GRAFANA / environment).read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    asked = set()
    for path in (GRAFANA / "provisioning").rglob("*.yaml"):
        asked |= set(re.findall(r"\$(\w+)", path.read_text(encoding="utf-8")))
    assert asked == given


def provisioned(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((GRAFANA / "provisioning" / path).read_text(encoding="utf-8"))
    return loaded


def test_data_sources_are_of_the_kinds_that_the_dashboards_ask_for() -> None:
    sources = {one["type"] for one in provisioned("datasources/spanwise.yaml")["datasources"]}
    asked = {panel["datasource"]["type"] for board in BOARDS.values() for panel in panels(board)}
    assert sources == asked == {"grafana-clickhouse-datasource", "prometheus"}


def test_dashboards_are_found_where_the_steps_mount_them() -> None:
    assert provisioned("dashboards/spanwise.yaml")["providers"][0]["options"]["path"] == "$DASHBOARDS_PATH"
    assert Path(FOLDER).name == "dashboards"
