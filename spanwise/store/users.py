"""SQL an administrator runs: the schema of a cluster, and users with no more rights than they need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from spanwise.model import TABLES
from spanwise.store.cluster import LOCAL, READ_SETTINGS, Cluster
from spanwise.store.connect import load_sql
from spanwise.store.migrate import LEDGER, migrations
from spanwise.store.ttl import literal

_SHARDS_MUST_KNOW: Final = """\
-- The policies are on the tables of the nodes, and hold there for the user who asked only if the cluster has a <secret>
-- in remote_servers. Without one every shard answers as the user of the cluster, which sees every row: set it first.
"""


def schema_statements(database: str, cluster: str = "") -> list[str]:
    """Everything `spanwise migrate` runs on an empty server or cluster, TTLs apart, in order."""
    spread = Cluster(cluster, database) if cluster else None
    if spread is None:
        every = [statement for migration in migrations() for statement in migration.statements]
        return [f"CREATE DATABASE IF NOT EXISTS `{database}`", f"USE `{database}`", LEDGER, *every]
    return [
        spread.create_database(),
        f"USE `{database}`",
        spread.ledger(LEDGER),
        *(
            said
            for migration in migrations()
            for statement in migration.statements
            for said in spread.statements(statement)
        ),
    ]


def users_sql(database: str, cluster: str = "", tenants: Sequence[str] = ()) -> str:
    """Statements with comments: roles, users, quotas and limits, and for each tenant a reader that sees its rows."""
    on_cluster = f" ON CLUSTER {literal(cluster)}" if cluster else ""
    names = [table.name for table in TABLES]
    tables = ", ".join(
        f"{database}.{name}" for name in [*names, *([name + LOCAL for name in names] if cluster else [])]
    )
    views = ", ".join(f"{database}.{name}" for name in view_names())
    # A filter on a Distributed table is refused when it is read: the tables of the nodes carry the policies.
    guarded = ", ".join(f"{database}.{name}{LOCAL if cluster else ''}" for name in names)
    common = {"on_cluster": on_cluster, "database": database, "tables": guarded}
    parts = [
        load_sql("spanwise.store", "users").format(
            **common,
            owner_on_cluster=f"GRANT{on_cluster} CLUSTER ON *.* TO spanwise_owner;\n" if cluster else "",
            reads_on_cluster="".join(f", {name} = {literal(value)}" for name, value in READ_SETTINGS.items())
            if cluster
            else "",
        )
    ]
    if tenants:
        selects = ", ".join(f"SELECT ON {place}" for place in f"{tables}, {views}".split(", "))
        parts.append(
            load_sql("spanwise.store", "users_tenants").format(
                **common, selects=selects, warning=_SHARDS_MUST_KNOW if cluster else ""
            )
        )
    parts += [
        load_sql("spanwise.store", "users_tenant").format(
            **common,
            role=_identifier(f"spanwise_tenant_{tenant}"),
            name=literal(f"spanwise_tenant_{tenant}"),
            tenant=literal(tenant),
        )
        for tenant in tenants
    ]
    return "\n".join(parts)


def view_names() -> list[str]:
    statements = (statement for migration in migrations() for statement in migration.statements)
    return [found[1] for statement in statements if (found := re.match(r"CREATE VIEW IF NOT EXISTS (\w+)", statement))]


def _identifier(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"
