"""Every table row can be executed and reached, and a wrong one stops the start with its file and row."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from processors.normalise import PlanError, plan_json
from processors.normalise.plan import HERE, TRANSFORMS, Row, Tables, compile_plan
from spanwise import _native

TABLES = Tables()
ROWS = [(name, n, row) for name, dialect in TABLES.dialects.items() for n, row in enumerate(dialect.row)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in ("tables", "dialects"):
        shutil.copytree(HERE / part, tmp_path / part)
    return tmp_path


def test_the_engine_accepts_the_plan() -> None:
    _native.Decoder(plan_json())


def test_every_process_makes_the_same_plan() -> None:
    """It is part of the token that a range is stored under, and a restart must send the range under the same."""
    program = "from processors.normalise import plan_json; import sys; sys.stdout.buffer.write(plan_json())"
    plans = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert plans == [plan_json(), plan_json()]


def test_priorities_are_unique_and_ascending() -> None:
    priorities = [dialect["priority"] for dialect in orjson.loads(plan_json())["dialects"]]
    assert priorities == sorted(set(priorities))


@pytest.mark.parametrize("name", TABLES.dialects)
def test_every_dialect_can_be_recognised(name: str) -> None:
    evidence = TABLES.dialects[name].detect.model_dump(exclude_defaults=True)
    assert evidence.keys() - {"none_attr", "none_attr_prefix", "require_attr_prefix"}


def _hides(earlier: Row, later: Row) -> bool:
    """The earlier row always yields first: same source and target, no condition the later one does not have."""
    unconditional = not (
        earlier.equals or earlier.scope or earlier.unless or earlier.how or earlier.not_on or earlier.failed is not None
    )
    kinds = not earlier.on or set(later.on) <= set(earlier.on) != set()
    same = earlier.to == later.to and set(later.from_) <= set(earlier.from_)
    return same and unconditional and kinds and earlier.action == "copy" and later.failed is None


@pytest.mark.parametrize(("name", "n", "row"), ROWS, ids=[f"{name}-{n}" for name, n, _ in ROWS])
def test_every_row_is_reachable(name: str, n: int, row: Row) -> None:
    before = TABLES.dialects[name].row[:n]
    assert not [other for other in before if other.fallback == row.fallback and _hides(other, row)]


def test_every_transform_is_used() -> None:
    markers = [how for dialect in TABLES.dialects.values() for marker in dialect.marker for how in marker.how]
    used = {how.partition(":")[0] for how in (*markers, *(how for _, _, row in ROWS for how in row.how))}
    assert used == set(TRANSFORMS)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "dialects/logfire.toml",
            'to = "spanwise.cost.total_usd"',
            'to = "cost"',
            r"logfire.toml: row.0: unknown target",
        ),
        ("dialects/mlflow.toml", 'how = "json:"', 'how = "yaml:"', r"mlflow.toml: row.0.how.0: .*unknown transform"),
        ("dialects/langfuse.toml", 'on = "tool"', 'on = "hammer"', r"langfuse.toml: row.\d+: unknown kind 'hammer'"),
        (
            "dialects/laminar.toml",
            "priority = 47",
            "priority = 46",
            r"langfuse.toml: priority 46 is also that of laminar",
        ),
        ("dialects/mlflow.toml", 'table = "mlflow_type"', 'table = "m"', r"mlflow.toml: marker.0: unknown table 'm'"),
        (
            "dialects/logfire.toml",
            'operation = "chat"',
            'operation = "talk"',
            r"logfire.toml: rule.0: unknown operation",
        ),
    ],
)
def test_a_wrong_row_is_named(copy: Path, file: str, old: str, new: str, message: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    with pytest.raises(PlanError, match=message):
        compile_plan(copy)


def test_a_copy_of_the_tables_gives_the_same_plan(copy: Path) -> None:
    assert compile_plan(copy) == plan_json()


def test_the_engine_refuses_a_plan_it_cannot_execute() -> None:
    plan = orjson.loads(plan_json())
    plan["dialects"][3]["rows"][0]["how"] = ["no_such_step"]
    name = plan["dialects"][3]["name"]
    with pytest.raises(ValueError, match=f"dialect {name}: row 0: unknown transform"):
        _native.Decoder(orjson.dumps(plan))
