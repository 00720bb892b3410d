"""The migrations as a cluster runs them: the same statements, said to every node.

A table `spans` becomes a replicated `spans_local` on every node and a `Distributed` table `spans` over them, so that
every query and insert stays as it is. All versions of a row lie on one shard (`Table.shard_by` is made of its key):
that is what lets `FINAL` over the cluster see one row of each key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spanwise.model import TABLES, Table

LOCAL: Final = "_local"
"""What the part of a table on one node is called after the table."""

WRITE_SETTINGS: Final = {
    # An insert is answered when every shard has its rows, not when they are queued on the disk of one node.
    "distributed_foreground_insert": 1,
}
SAME_REPLICA_SETTINGS: Final[dict[str, str | int]] = {
    # What was just written is read where it was written, whichever node is asked.
    "load_balancing": "in_order",
    "prefer_localhost_replica": 0,
}
READ_SETTINGS: Final = {
    # A subquery is answered once and sent to all shards; the default refuses it.
    "distributed_product_mode": "global",
}
DDL_SETTINGS: Final = {
    # A node that is away gets the statement when it comes back; the others are not kept waiting for it.
    "distributed_ddl_output_mode": "none_only_active",
    "distributed_ddl_task_timeout": 60,
}

_TABLE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<name>\w+)\n(?P<columns>\(\n.*\n\))\n"
    r"ENGINE = ReplacingMergeTree\((?P<arguments>[\w, ]*)\)\n(?P<rest>.*)",
    re.DOTALL,
)
_VIEW: Final = re.compile(r"CREATE VIEW IF NOT EXISTS (?P<name>\w+) AS\n(?P<rest>.*)", re.DOTALL)
_ALTER: Final = re.compile(r"ALTER TABLE (?P<name>\w+) (?P<change>.*)", re.DOTALL)
_DROP: Final = re.compile(r"DROP TABLE IF EXISTS (?P<name>\w+)")
_BOTH: Final = re.compile(r"(ADD|MODIFY|COMMENT|DROP|RENAME) COLUMN ")
_WINDOW: Final = re.compile(r"non_replicated_deduplication_window = (\d+)")
_WINDOW_S: Final = 7 * 86_400
"""As long as a journal may wait to send a range again; the server's own default is an hour."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster by its name in `remote_servers`, and the database in it."""

    name: str
    database: str

    def create_database(self) -> str:
        return f"CREATE DATABASE IF NOT EXISTS `{self.database}` ON CLUSTER '{self.name}'"

    def statements(self, statement: str, tables: Sequence[Table] = TABLES) -> list[str]:
        """What a statement of a migration becomes. Raises ValueError for one that cannot be said to a cluster."""
        if found := _TABLE.fullmatch(statement):
            (shard_by,) = (table.shard_by for table in tables if table.name == found["name"])
            return self._table(found["name"], found["columns"], found["arguments"], found["rest"], shard_by)
        if found := _VIEW.fullmatch(statement):
            return [f"CREATE VIEW IF NOT EXISTS {self._at(found['name'])} AS\n{found['rest']}"]
        if found := _ALTER.fullmatch(statement):
            names = [found["name"] + LOCAL, *([found["name"]] if _BOTH.match(found["change"]) else [])]
            return [f"ALTER TABLE {self._at(name)} {found['change']}" for name in names]
        if found := _DROP.fullmatch(statement):
            return [f"DROP TABLE IF EXISTS {self._at(found['name'] + part)} SYNC" for part in ("", LOCAL)]
        raise ValueError(f"no cluster can run {' '.join(statement.split()[:6])!r}")

    def ledger(self, statement: str) -> str:
        """The table of migrations: one that every node has whole, on whichever shard it is."""
        (name,) = re.findall(r"^CREATE TABLE IF NOT EXISTS (\w+)\n", statement)
        engine = "ReplicatedReplacingMergeTree('/clickhouse/tables/all/{database}/{table}', '{shard}-{replica}')"
        return statement.replace(f" {name}\n", f" {self._at(name)}\n", 1).replace("ReplacingMergeTree", engine, 1)

    def _table(self, name: str, columns: str, arguments: str, rest: str, shard_by: str) -> list[str]:
        local = name + LOCAL
        # By name, not by {uuid}: a replica that joins later runs the same statement and must find the same path.
        engine = ", ".join(filter(None, ("'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'", arguments)))
        windows = rf"replicated_deduplication_window = \1, replicated_deduplication_window_seconds = {_WINDOW_S}"
        return [
            f"CREATE TABLE IF NOT EXISTS {self._at(local)}\n{columns}\n"
            f"ENGINE = ReplicatedReplacingMergeTree({engine})\n" + _WINDOW.sub(windows, rest),
            f"CREATE TABLE IF NOT EXISTS {self._at(name)} AS `{self.database}`.`{local}`\n"
            f"ENGINE = Distributed('{self.name}', '{self.database}', '{local}', {shard_by})",
        ]

    def _at(self, name: str) -> str:
        return f"`{self.database}`.`{name}` ON CLUSTER '{self.name}'"
