"""An embedded engine that is told it is a cluster of one node, or that its user has few rights; prints JSON.

What an embedded engine lacks is left out of the statements: the DDL queue (`ON CLUSTER`), and a keeper, without which
replicated tables are plain ones. It cannot create users either: grants, limits and row policies of the printed SQL are
written into the users' file that it reads at its start.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import chdb
from clickhouse_connect.driver.exceptions import Error as DriverError

from spanwise.model import CONTENT, SPANS, TRACES
from spanwise.reconciler.queries import Queries
from spanwise.retention import Retention
from spanwise.store import Store, StoreConfig, TtlDays, TtlOptions, connect
from spanwise.store import cluster as clusters
from spanwise.store.errors import code_of
from spanwise.store.migrate import apply_options, check_schema, migrate, prove_deduplication
from spanwise.store.users import schema_statements, users_sql, view_names
from tests.store.rows import batch, content, span, spans

_CONFIG = """<clickhouse>
<tcp_port>9000</tcp_port><macros><shard>01</shard><replica>a</replica></macros>
<users_config>{users}</users_config>
<remote_servers><agents><shard><internal_replication>true</internal_replication>
<replica><host>127.0.0.1</host><port>9000</port></replica></shard></agents></remote_servers>
</clickhouse>"""
_USERS = """<clickhouse>
<profiles><default>{settings}</default></profiles><quotas><default/></quotas>
<users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
{rights}</default></users></clickhouse>"""


_OPEN: list[Any] = []


class OneNode(Store):
    """A store that says to its engine what a cluster's DDL queue would say to each node."""

    def command(self, sql: str, params: Any = None) -> None:
        sql = re.sub(r" ON CLUSTER '\w+'", "", sql)
        sql = re.sub(r"Replicated(ReplacingMergeTree)\('[^']*', '[^']*'(?:, )?", r"\1(", sql)
        sql = re.sub(
            r"replicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+",
            r"non_replicated_deduplication_window = \1",
            sql,
        )
        super().command(sql, params)


def opened(folder: Path, *, users: str = "") -> OneNode:
    (folder / "users.xml").write_text(users or _USERS.format(settings="", rights=""))
    (folder / "config.xml").write_text(_CONFIG.format(users=folder / "users.xml"))
    engine_options = connect._Target.engine_options
    connect._Target.engine_options = (  # type: ignore[method-assign]
        lambda self: {**engine_options(self), "config-file": str(folder / "config.xml")}
    )
    # the only node is the one that is asked: the engine listens on no port to be asked through
    clusters.SAME_REPLICA_SETTINGS["prefer_localhost_replica"] = 1
    # what a server knows from its configuration, not from an option of ours
    connect._Target._check_server_options = lambda *_: None  # type: ignore[method-assign]
    clusters.Cluster.create_database = (  # type: ignore[method-assign]
        lambda self: f"CREATE DATABASE IF NOT EXISTS `{self.database}`"
    )
    options = {"dsn": f"chdb://{folder / 'data'}", "cluster": "agents", "migrate": not users}
    return OneNode(StoreConfig.model_validate(options))


def distributed(folder: Path) -> dict[str, Any]:
    store = opened(folder)
    migrate(store)
    apply_options(store, TtlOptions(ttl_days=TtlDays(spans=0, content=0)))
    check_schema(store)
    prove_deduplication(store)
    rows = spans([span(n, content=[reference()] if n == 0 else []) for n in range(50)])
    found: dict[str, Any] = {"inserted": 50}
    store.insert(SPANS, rows, "range 1")
    store.insert(
        CONTENT,
        content([{"tenant": "t", "trace_id": f"{0:032x}", "hash": "f" * 32, "value": "a long prompt"}]),
        "range 1",
    )
    store.insert(SPANS, rows, "range 1")
    found["after_the_same_token"] = counted(store, "SELECT count() FROM spans")
    store.insert(SPANS, rows, "range 2")
    found["with_another_token"] = counted(store, "SELECT count() FROM spans")
    found["final"] = counted(store, "SELECT count() FROM spans FINAL")
    found["content_value"] = store.read_arrow(
        f"SELECT value FROM span_content WHERE tenant = 't' AND trace_id = '{0:032x}'"
    ).to_pylist()[0]["value"]
    found["views"] = [view for view in view_names() if store.read_arrow(f"SELECT * FROM {view}").num_rows >= 0]
    found["second_start"] = [*migrate(store), *apply_options(store, TtlOptions(ttl_days=TtlDays(spans=0, content=0)))]
    found["kept"] = kept(store)
    found["aside"] = aside(store)
    changed = apply_options(store, TtlOptions(ttl_days=TtlDays(spans=9, content=0)))
    found["changed_ttl"] = [statement.split()[2] for statement in changed]
    found["engine_of_spans_local"] = store.read_arrow(
        "SELECT engine_full FROM system.tables WHERE name = 'spans_local'"
    ).to_pylist()[0]["engine_full"]
    store.command("TRUNCATE TABLE spans_local")
    two = [span(n, tenant=tenant) for n, tenant in enumerate(("acme", "globex"))]
    store.insert(SPANS, batch(SPANS, two), "what users are asked about")
    store.close()
    return found


def kept(store: Store) -> list[dict[str, Any]]:
    """Rows by class once the failed one of two traces was kept."""
    now = counted(store, "SELECT toUnixTimestamp(now())")
    day = dt.date(1970, 1, 1) + dt.timedelta(days=now // 86_400 - 29)
    old = {"day": day, "received_at": (now - 29 * 86_400) * 1000, "start_time": (now - 29 * 86_400) * 10**9}
    store.command("TRUNCATE TABLE spans_local")
    store.insert(SPANS, spans([span(number, trace_id=str(number), **old) for number in (1, 2)]), "old")
    severities = [{"tenant": "t", "trace_id": str(n), "finding_severity": s, **old} for n, s in ((1, "high"), (2, ""))]
    store.insert(TRACES, batch(TRACES, severities), "old")
    Retention(TtlOptions(), store=store).tick()
    found = store.read_arrow("SELECT toString(retention) AS class, trace_id FROM spans ORDER BY class, trace_id")
    return [dict(row) for row in found.to_pylist()]


def aside(store: Store) -> list[Any]:
    """A trace that was set aside, as a reconciler finds it and adds it up."""
    mine = {"trace_id": "a" * 32}
    store.insert(SPANS, spans([span(n, **mine, usage_scope="own", input_tokens=7) for n in range(3)]), "aside")
    store.insert(
        TRACES, batch(TRACES, [{"tenant": "t", "version": 5, "partial": "failed", "duration_ns": 9, **mine}]), "aside"
    )
    queries = Queries(store, time.time_ns)
    (found,) = queries.failed(10)
    (row,) = queries.sums(found.key, found.low_ns, found.high_ns).to_pylist()
    (rows,) = queries.spans({found.key: (found.low_ns, found.high_ns)}, 2)
    known = queries.known([found.key])[found.key]
    return [found.key, row["span_count"], row["input_tokens"], rows.num_rows, known.version]


def reference() -> dict[str, Any]:
    return {"key": "input", "form": "text", "hash": "f" * 32, "bytes": 13}


def counted(store: Store, sql: str) -> int:
    return int(store.read_arrow(sql).column(0)[0].as_py())


def restricted(folder: Path, role: str) -> dict[str, Any]:
    """What a user may do that has one role, by name: rows, `ok`, or the name of ClickHouse's refusal."""
    store = opened(folder, users=users_file(role))
    client = store._target.client({}, database="spanwise")
    by_span = {f"{0:016x}": "acme", f"{1:016x}": "globex"}
    reads = {
        "spans": "SELECT DISTINCT tenant FROM spans ORDER BY tenant",
        "spans_local": "SELECT DISTINCT tenant FROM spans_local ORDER BY tenant",
        "through_a_view": "SELECT SpanId FROM otel_traces ORDER BY SpanId",
        "ledger": "SELECT name FROM schema_migrations",
        "url": "SELECT * FROM url('http://127.0.0.1:9/', 'TSV', 'tenant String')",
    }
    writes = {
        "insert": "INSERT INTO spans (tenant) SELECT 'acme'",
        "create": "CREATE TABLE other (a Int8) ENGINE = Memory",
        "truncate": "TRUNCATE TABLE spans_local",
        "alter": "ALTER TABLE spans_local ADD COLUMN a Int8",
        "drop": "DROP TABLE spans_local",
        "raise_the_limit": "SET max_execution_time = 31",
        "lower_the_limit": "SET max_execution_time = 29",
    }
    found: dict[str, Any] = {}
    for name, sql in (reads | writes).items():
        try:
            if name in reads:
                answer = client.raw_query(sql, fmt="TSV").decode().split()
                found[name] = [by_span.get(each, each) for each in answer]
            else:
                client.command(sql)
                found[name] = "ok"
        except DriverError as error:
            _, found[name] = code_of(error)
    client.close()
    store.close()
    return found


def users_file(role: str) -> str:
    """The rights that the printed SQL gives a role, as the embedded engine can be told of them."""
    said = [line.rstrip(";") for line in users_sql("spanwise", "agents", ["acme"]).splitlines()]
    said = [re.sub(r" ON CLUSTER '\w+'", "", line) for line in said]
    said = [re.sub(r"^GRANT ON CLUSTER '\w+'", "GRANT", line) for line in said]
    roles = {role}
    for line in said:
        if found := re.fullmatch(rf"GRANT (\w+) TO `?{role}`?", line):
            roles.add(found[1])
    grants = [
        found[1]
        for line in said
        if (found := re.fullmatch(r"(GRANT .* ON .*) TO `?(\w+)`?", line)) and found[2] in roles
    ]
    filters: dict[str, list[str]] = {}
    for line in said:
        found = re.fullmatch(r"CREATE ROW POLICY IF NOT EXISTS \S+ ON (.*) USING (.*) TO (.*)", line)
        if found and applies(found[3], roles):
            for table in found[1].split(", "):
                filters.setdefault(table.split(".")[1], []).append(f"({found[2]})")
    profile = ""
    for line in said:
        if (found := re.fullmatch(r"CREATE ROLE IF NOT EXISTS (\w+) SETTINGS PROFILE spanwise_reader", line)) and found[
            1
        ] in roles:
            profile = next(each for each in said if each.startswith("CREATE SETTINGS PROFILE"))
    rights = "<grants>" + "".join(f"<query>{escape(grant)}</query>" for grant in grants) + "</grants>"
    rights += (
        "<databases><spanwise>"
        + "".join(
            f"<{table}><filter>{escape(' OR '.join(found))}</filter></{table}>" for table, found in filters.items()
        )
        + "</spanwise></databases>"
    )
    return _USERS.format(settings=settings_of(profile), rights=rights)


def applies(to: str, roles: set[str]) -> bool:
    if excepted := re.fullmatch(r"ALL EXCEPT (\w+)", to):
        return excepted[1] not in roles
    return to.strip("`") in roles


def settings_of(profile: str) -> str:
    """`name = value MIN a MAX b` as elements of a profile."""
    if not profile:
        return ""
    values, constraints = "", ""
    for part in profile.rsplit(" SETTINGS ", maxsplit=1)[-1].split(", "):
        name, value, low, high = re.fullmatch(
            r"(\w+) = '?(\w+)'?(?: MIN (\d+))?(?: MAX (\d+))?(?: CONST)?", part
        ).groups()  # type: ignore[union-attr]
        values += f"<{name}>{value}</{name}>"
        if low:
            constraints += f"<{name}><min>{low}</min><max>{high}</max></{name}>"
    return f"{values}<constraints>{constraints}</constraints>"


def replica(folder: Path, port: str, shard: str, name: str) -> dict[str, Any]:
    """(path, replicas) of each replicated table, as a node that makes its schema finds them."""
    config = folder / "config.xml"
    config.write_text(
        f"<clickhouse><macros><shard>{shard}</shard><replica>{name}</replica></macros>"
        f"<zookeeper><node><host>127.0.0.1</host><port>{port}</port></node></zookeeper></clickhouse>"
    )
    # Without a store around it: a table that cannot copy parts is not ready for anything else. The engine stays open:
    # tables that go on looking for their keeper would not let it.
    connection = chdb.connect(f"{folder / 'data'}?config-file={config}")  # type: ignore[no-untyped-call]
    _OPEN.append(connection)
    for statement in schema_statements("spanwise", "agents"):
        if "Distributed(" not in statement and not statement.startswith("CREATE VIEW"):
            connection.query(re.sub(r" ON CLUSTER '\w+'", "", statement))
    answer = connection.query("SELECT table, zookeeper_path, total_replicas FROM system.replicas", "JSONEachRow")
    rows = [json.loads(line) for line in answer.bytes().splitlines()]
    return {row["table"]: [row["zookeeper_path"], row["total_replicas"]] for row in rows}


if __name__ == "__main__":
    place, role = Path(sys.argv[1]), sys.argv[2]
    if role == "replica":
        told = replica(place, *sys.argv[3:])
    else:
        told = restricted(place, role) if role else distributed(place)
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    os._exit(0)
