"""What is said to a cluster: parsed by the engine, and run by it as far as one process can be a cluster.

`tests/store/cluster_child.py` is a process of its own, because an engine knows its cluster from the moment it opens.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spanwise.model import TABLES
from spanwise.store import Store
from spanwise.store.cluster import Cluster
from spanwise.store.migrate import LEDGER, migrations
from spanwise.store.users import schema_statements, users_sql, view_names
from tests.running import free_port

ROOT = Path(__file__).parents[2]
CLUSTER = Cluster("agents", "spanwise")


def parsed(engine: Store, statement: str) -> str:
    """As the engine's parser writes it on one line. Raises if it cannot read the statement."""
    (row,) = engine.read_arrow("SELECT formatQuerySingleLine({s:String}) AS said", {"s": statement}).to_pylist()
    return str(row["said"])


def statements_of(sql: str) -> list[str]:
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip()]


@pytest.mark.parametrize("cluster", ["", "agents", "{cluster}"])
def test_engine_parses_every_statement_of_the_schema(engine: Store, cluster: str) -> None:
    for statement in schema_statements("spanwise", cluster):
        assert parsed(engine, statement)


@pytest.mark.parametrize("cluster", ["", "agents", "{cluster}"])
def test_engine_parses_every_statement_of_the_users(engine: Store, cluster: str) -> None:
    for statement in statements_of(users_sql("spanwise", cluster, ["acme", "o'hara `\\ ", "default"])):
        assert parsed(engine, statement)


def test_every_statement_for_a_cluster_names_it_and_the_database() -> None:
    for statement in schema_statements("spanwise", "agents")[2:]:
        assert statement.startswith("CREATE ")
        assert " ON CLUSTER 'agents'" in statement
        assert "`spanwise`.`" in statement.split("\n", 1)[0]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_versions_of_a_row_share_a_shard(table: Any) -> None:
    key = " ".join(table.order_by)
    used = table.shard_by.removeprefix("cityHash64(").removesuffix(")").split(", ")
    assert [column for column in used if column not in key] == []


def test_replica_that_joins_later_finds_the_path_of_the_others(engine: Store) -> None:
    local, distributed = CLUSTER.statements(migrations()[0].statements[0])
    assert "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version" in parsed(engine, local)
    assert "Distributed('agents', 'spanwise', 'spans_local', cityHash64(trace_id))" in parsed(engine, distributed)
    assert "'/clickhouse/tables/all/{database}/{table}', '{shard}-{replica}'" in CLUSTER.ledger(LEDGER)


def test_changes_of_columns_reach_both_tables_and_the_rest_the_local_one() -> None:
    assert CLUSTER.statements("ALTER TABLE spans ADD COLUMN IF NOT EXISTS a String") == [
        "ALTER TABLE `spanwise`.`spans_local` ON CLUSTER 'agents' ADD COLUMN IF NOT EXISTS a String",
        "ALTER TABLE `spanwise`.`spans` ON CLUSTER 'agents' ADD COLUMN IF NOT EXISTS a String",
    ]
    assert CLUSTER.statements("ALTER TABLE spans REMOVE TTL") == [
        "ALTER TABLE `spanwise`.`spans_local` ON CLUSTER 'agents' REMOVE TTL"
    ]


def test_statement_no_cluster_can_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no cluster can run 'OPTIMIZE TABLE spans'"):
        CLUSTER.statements("OPTIMIZE TABLE spans")


# Replicas that share a real ZooKeeper; an embedded engine takes part in making tables, not in copying parts

ZOOKEEPER = Path("/usr/share/java/zookeeper.jar")


@pytest.fixture
def zookeeper(tmp_path: Path) -> Iterator[int]:
    """The port of a ZooKeeper."""
    java = shutil.which("java")
    if java is None or not ZOOKEEPER.is_file():
        pytest.skip("needs Java and ZooKeeper: apt-get install default-jre-headless libzookeeper-java")
    port = free_port()
    config = tmp_path / "zoo.cfg"
    config.write_text(
        f"tickTime=500\ndataDir={tmp_path / 'zookeeper'}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "admin.enableServer=false\n"
    )
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    command = [java, "-Xmx128m", "-cp", str(ZOOKEEPER.parent / "*"), main, str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield port
        finally:
            process.kill()


def test_replica_that_comes_later_joins_every_table_of_its_shard(zookeeper: int, tmp_path: Path) -> None:
    seen = {}
    for shard, replica in (("01", "a"), ("01", "b")):
        (tmp_path / replica).mkdir()
        seen[replica] = child(tmp_path / replica, "replica", str(zookeeper), shard, replica)
    tables = {f"{table.name}_local" for table in TABLES}
    assert {*seen["a"]} == {*seen["b"]} == tables | {"schema_migrations"}
    for table in tables:
        assert seen["a"][table] == [f"/clickhouse/tables/01/spanwise/{table}", 1]
        assert seen["b"][table] == [f"/clickhouse/tables/01/spanwise/{table}", 2]
    assert seen["b"]["schema_migrations"] == ["/clickhouse/tables/all/spanwise/schema_migrations", 2]


# A cluster of one node, as far as an embedded engine is one: it has no keeper and no DDL queue


def child(place: Path, role: str = "", *more: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.cluster_child", str(place), role, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def distributed(place: Path) -> Any:
    return child(place)


def test_same_token_through_a_distributed_table_stores_nothing_again(distributed: Any) -> None:
    assert distributed["after_the_same_token"] == distributed["inserted"]


def test_final_through_a_distributed_table_sees_one_row_a_key(distributed: Any) -> None:
    assert distributed["with_another_token"] == 2 * distributed["inserted"]
    assert distributed["final"] == distributed["inserted"]


def test_views_answer_over_distributed_tables(distributed: Any) -> None:
    assert distributed["content_value"] == "a long prompt"
    assert sorted(distributed["views"]) == sorted(view_names())


def test_second_start_changes_nothing_on_a_cluster(distributed: Any) -> None:
    assert distributed["second_start"] == []


def test_changed_ttl_reaches_the_tables_of_the_nodes(distributed: Any) -> None:
    assert distributed["changed_ttl"] == ["spans"]
    assert "[90], 9)" in distributed["engine_of_spans_local"]


def test_failed_traces_are_kept_through_distributed_tables(distributed: Any) -> None:
    assert distributed["kept"] == [
        {"class": "", "trace_id": "1"},
        {"class": "", "trace_id": "2"},
        {"class": "failed", "trace_id": "1"},
    ]


def test_a_trace_that_was_set_aside_is_found_and_added_up_through_distributed_tables(distributed: Any) -> None:
    assert distributed["aside"] == [["t", "a" * 32], 3, 21, 2, 5]


@pytest.mark.usefixtures("distributed")
def test_reader_of_a_tenant_sees_its_rows_only(place: Path) -> None:
    seen = child(place, "spanwise_tenant_acme")
    assert seen["spans"] == seen["spans_local"] == seen["through_a_view"] == ["acme"]
    assert {seen[name] for name in ("insert", "ledger", "url")} == {"ACCESS_DENIED"}
    assert (seen["lower_the_limit"], seen["raise_the_limit"]) == ("ok", "SETTING_CONSTRAINT_VIOLATION")


@pytest.mark.usefixtures("distributed")
def test_role_of_tenants_without_a_tenant_sees_nothing(place: Path) -> None:
    seen = child(place, "spanwise_tenant")
    assert seen["spans"] == seen["spans_local"] == seen["through_a_view"] == []


@pytest.mark.usefixtures("distributed")
def test_writer_inserts_and_reads_and_changes_no_table(place: Path) -> None:
    seen = child(place, "spanwise_writer")
    assert (seen["insert"], seen["spans"]) == ("ok", ["acme", "globex"])
    assert {seen[name] for name in ("drop", "alter", "create", "truncate", "url")} == {"ACCESS_DENIED"}
