"""The arithmetic of docs/capacity.md: whatever it derives follows from the figures it calls measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import pytest

from tests.running import ROOT

PAGE = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
RATES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)

BUSY = 0.6
POD_CORES = 2
INSERTS_A_CELL = 10
PARTITIONS_A_WORKER = 2
BATCH_AGE_S = 5
BATCH_MIB = 64
RETENTION_S = 72 * 3600
REPLICAS = 3
MIX = {"small": 0.95, "agent": 0.05}

Costs = Mapping[str, float]


def table(after: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    text = PAGE.split(f"\n## {after}\n", 1)[1].split("\n## ", 1)[0]
    lines = text[text.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(text: str) -> float:
    return float(text.replace(",", ""))


def measured() -> dict[str, dict[str, float]]:
    """Figure by row, by shape."""
    shapes = ("small", "agent", "demo")
    return {row[0]: dict(zip(shapes, map(number, row[1:]), strict=True)) for row in table("Measured")}


def mixed() -> dict[str, dict[str, float]]:
    return {
        row: {**found, "mix": sum(share * found[shape] for shape, share in MIX.items())}
        for row, found in measured().items()
    }


def rounded(value: float) -> str:
    """Two significant digits, as a model deserves."""
    if value < 9.95:
        return f"{value:.1f}"
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.0f}"


def per_core() -> list[list[str]]:
    found = measured()
    rows = []
    for part in ("receiver", "worker", "ClickHouse", "broker"):
        cpu = found[f"CPU s per 100,000 spans: {part}"]
        rates = {shape: 1e5 / cpu[shape] for shape in MIX}
        bytes_ = {shape: rate * found["bytes a span as sent"][shape] / 1e6 for shape, rate in rates.items()}
        rows.append([part, *(f"{rounded(rates[shape])} spans, {rounded(bytes_[shape])} MB" for shape in rates)])
    return rows


def fleet(shape: str) -> list[list[str]]:
    cost = {row: found[shape] for row, found in mixed().items()}
    cpu = {part: cost[f"CPU s per 100,000 spans: {part}"] / 1e5 for part in ("receiver", "worker", "ClickHouse")}
    rows = []
    for rate in RATES:
        pods = {part: max(2, math.ceil(rate * cpu[part] / BUSY / POD_CORES)) for part in ("receiver", "worker")}
        by_age = pods["worker"] * PARTITIONS_A_WORKER / BATCH_AGE_S
        by_bytes = rate * cost["bytes a span as sent"] / (BATCH_MIB * 2**20 / PARTITIONS_A_WORKER)
        cells = math.ceil(max(by_age, by_bytes) / INSERTS_A_CELL)
        kafka_tb = rate * cost["bytes a span in Kafka"] * RETENTION_S * REPLICAS / 1e12
        disk_tb = rate * cost["bytes a span on disk"] * 86400 / 1e12
        rows.append(
            [
                f"{rate:,}",
                rounded(rate * cost["bytes a span as sent"] / 1e6),
                f"{pods['receiver']:,}",
                f"{pods['worker']:,}",
                rounded(rate * cpu["ClickHouse"] / BUSY),
                f"{cells:,}",
                rounded(kafka_tb),
                rounded(disk_tb),
            ]
        )
    return rows


def test_what_a_core_does_follows_from_what_a_span_costs() -> None:
    assert table("What one core does") == per_core()


@pytest.mark.parametrize(("heading", "shape"), [("Small spans", "small"), ("A mix", "mix")])
def test_what_a_fleet_needs_follows_from_it_and_the_assumptions(heading: str, shape: str) -> None:
    assert table(heading) == fleet(shape)


def test_disk_per_million_spans_is_that_of_a_span() -> None:
    said = re.findall(r"(\w+) ([\d.]+) GB per million", PAGE)

    assert {shape: float(gigabytes) for shape, gigabytes in said} == {
        shape: round(bytes_ / 1000, 2) for shape, bytes_ in measured()["bytes a span on disk"].items()
    }


def test_assumptions_are_those_of_the_model() -> None:
    assumptions = PAGE.split("\n## Assumptions\n", 1)[1].split("\n## ", 1)[0]

    assert f"{BUSY:.0%}".replace("%", " %") in assumptions
    assert f"{POD_CORES} cores" in assumptions
    assert f"{INSERTS_A_CELL} inserts a second" in assumptions
    assert f"{PARTITIONS_A_WORKER} partitions" in assumptions
    assert f"`pipeline.batch_age_s` is {BATCH_AGE_S} and `batch_bytes` {BATCH_MIB} MiB" in assumptions
    assert f"each {BATCH_MIB / PARTITIONS_A_WORKER:.0f} MiB" in assumptions
    assert f"{INSERTS_A_CELL * BATCH_AGE_S / PARTITIONS_A_WORKER:.0f} workers" in assumptions
    megabytes = INSERTS_A_CELL * BATCH_MIB * 2**20 / PARTITIONS_A_WORKER / 1e6
    assert f"{rounded(megabytes)} MB/s" in assumptions
    assert f"{MIX['small']:.0%}".replace("%", " %") in assumptions
