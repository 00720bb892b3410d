"""The libraries of Grafana's data source take every answer: clickhouse-go over HTTP, and the frames of the plugin SDK.

Building them takes minutes and needs the network: only `make grafana` does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dashboards.boards import QUESTIONS
from tests.dashboards.demo import demo_server
from tests.tools import built

SOURCE = Path(__file__).with_name("frames")
BUILD_S = 1_500
FORMATS = {"timeseries": 0, "table": 1, "stat": 1, "variable": 1, "traces": 3}


@pytest.fixture(scope="module")
def program() -> Path:
    if not os.environ.get("SPANWISE_GRAFANA"):
        pytest.skip("`make grafana` asks through the libraries of Grafana's data source")
    if not shutil.which("go"):
        pytest.skip("install Go 1.26 or newer to ask through the libraries of Grafana's data source")
    return built("frames", SOURCE, ["go", "build", "-o", "frames", "."], BUILD_S) / "frames"


@pytest.mark.timeout(1_800)
def test_every_answer_of_the_demo_becomes_a_frame(program: Path, tmp_path: Path) -> None:
    with demo_server(tmp_path / "data") as demo:
        questions = [{"title": str(one), "format": FORMATS[one.kind], "sql": demo.sql(one)} for one in QUESTIONS]
        done = subprocess.run(
            [program, f"127.0.0.1:{demo.server.clickhouse_port}"],
            input="\n".join(map(json.dumps, questions)),
            capture_output=True,
            text=True,
            check=True,
        )

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["title"] for answer in answers] == [str(one) for one in QUESTIONS]
    assert [answer for answer in answers if answer["error"]] == []
    for one, answer in zip(QUESTIONS, answers, strict=True):
        if one.kind == "timeseries" and answer["fields"]:
            first, *values = answer["fields"]
            assert first.startswith("time{}"), one
            assert not any(value.endswith("string") for value in values), f"{one}: a label that is no series"
