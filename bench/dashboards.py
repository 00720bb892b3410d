"""How long each panel of the dashboards takes on one million spans.

The spans are those of the dashboard tests: 24 agents of 8 services and 3 tenants, evenly over a day, counted into
`rollup_1m` by the program's own code. Every query is asked as Grafana asks it, for the whole day, several times; the
best time counts, since other work on the machine only adds to it. CPU is of all threads: a machine with nothing else to
do takes at most that long. Ends with 1 if a panel is over the limit in both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta

from spanwise.store import Store, StoreConfig, TtlDays, open_store
from tests.dashboards.boards import QUESTIONS
from tests.dashboards.data import fill, singles
from tests.dashboards.grafana import View, expand

_LIMIT_MS = 200
_RUNS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--hours", type=int, default=24)
    arguments = parser.parse_args()
    until = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    since = until - timedelta(hours=arguments.hours)
    forever = TtlDays.model_validate(dict.fromkeys(TtlDays.model_fields, 0))
    with tempfile.TemporaryDirectory() as directory:
        config = StoreConfig.model_validate({"dsn": f"chdb://{directory}/store", "ttl_days": forever})
        store = open_store(Store(config))
        fill(store, arguments.spans, since, until)
        slow = _ask(store, since, until)
        store.close()
    sys.exit(f"over {_LIMIT_MS} ms: {', '.join(slow)}" if slow else 0)


def _ask(store: Store, since: datetime, until: datetime) -> list[str]:
    counts = store.read_arrow(
        "SELECT (SELECT count() FROM spans) AS spans, (SELECT count() FROM rollup_1m) AS groups, "
        "(SELECT count() FROM traces) AS traces, (SELECT count() FROM findings) AS findings"
    ).to_pylist()[0]
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()), f"over {until - since}")
    chosen = singles(store)
    interval_s = max(60, int((until - since).total_seconds() / 1_000) // 60 * 60)
    slow = []
    for one in QUESTIONS:
        sql = expand(one.sql, View(since, until, interval_s, chosen.get(one.board, {})))
        wall, cpu, rows = [], [], 0
        with store.reader() as client:
            for _ in range(_RUNS):
                began, began_cpu = time.perf_counter(), time.process_time()
                rows = len(client.query(sql).result_rows)
                wall.append(time.perf_counter() - began)
                cpu.append(time.process_time() - began_cpu)
        best = min(wall) * 1_000
        print(f"{one!s:<50} {best:6.0f} ms  {min(cpu) * 1_000:6.0f} ms CPU  {rows:6,} rows")
        if min(best, min(cpu) * 1_000) > _LIMIT_MS:
            slow.append(str(one))
    return slow


if __name__ == "__main__":
    main()
