"""A process that is killed while it stores, and its successor that stores the same range again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Acknowledges each range on stdout, numbered from where it is told to start. Same number, same token, same rows.
WRITER = """
import sys
from sinks import ClickHouseSinkConfig
from spanwise.store import Store, StoreConfig, open_store
from tests.store.rows import content, log_events, span, spans

store = open_store(Store(StoreConfig.model_validate({"dsn": sys.argv[1]})))
store.command("SYSTEM STOP MERGES spans")  # they would hide a repeated range
sink = ClickHouseSinkConfig().build(store)
now_ms = store.read_arrow("SELECT toUnixTimestamp64Milli(now64(3)) AS now").to_pylist()[0]["now"]
for number in range(int(sys.argv[2]), 10_000):
    rows = [span(number * 40 + k, received_at=now_ms) for k in range(40)]
    values = [{"tenant": "t", "trace_id": str(number), "hash": str(k), "received_at": now_ms} for k in range(10)]
    sink.write(f"range {number}", spans(rows), content(values), log_events([]))
    print(number, flush=True)
"""

COUNTER = """
import sys
from spanwise.store import Store, StoreConfig

store = Store(StoreConfig.model_validate({"dsn": sys.argv[1]}))
sql = "SELECT count() AS rows, uniqExact(span_id) AS spans FROM spans WHERE span_id < {end:String}"
print(store.read_arrow(sql, {"end": f"{int(sys.argv[2]):016x}"}).to_pylist()[0])
"""


def test_killed_and_replayed_ranges_are_stored_once(tmp_path: Path) -> None:
    dsn = f"chdb://{tmp_path / 'store'}?database=crash"
    seed = random.Random(7)
    done = -1
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, dsn, str(done + 1)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as writer:
            assert writer.stdout is not None
            done = int(writer.stdout.readline())
            time.sleep(seed.random() * 0.3)
            writer.kill()
            done = max([done, *map(int, writer.stdout.read().split())])
    # A range that was under way when its writer died was sent again by the next one; the last one may be unfinished.
    counted = subprocess.run(
        [sys.executable, "-c", COUNTER, dsn, str((done + 1) * 40)], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    assert counted.strip() == str({"rows": (done + 1) * 40, "spans": (done + 1) * 40})


def test_directory_of_another_process_is_refused_with_a_sentence(tmp_path: Path) -> None:
    dsn = f"chdb://{tmp_path / 'store'}"
    program = (
        "import sys; from spanwise.store import *\n"
        "try: Store(StoreConfig.model_validate({'dsn': sys.argv[1]}))\n"
        "except StoreConfigError as error: print(error)"
    )
    holder = subprocess.Popen([sys.executable, "-c", WRITER, dsn, "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = subprocess.run(
            [sys.executable, "-c", program, dsn], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        holder.kill()
        holder.stdout.read()
    assert "another process has it open" in said
