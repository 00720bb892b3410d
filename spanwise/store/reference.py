"""The table reference of the documentation, written from the column tables."""

from __future__ import annotations

from spanwise.model import TABLES, Table
from spanwise.store.migrate import migrations
from spanwise.store.ttl import TtlDays

_HEAD = """# Tables

<!-- Written by `python -m docs.generate`; change `spanwise/model.py` or the migrations instead. -->

Names and types are a public interface. Read `spans` and `traces` with `FINAL`: a span delivered twice, or corrected
when its trace went quiet, is several rows until ClickHouse merges them. Money is in USD with nine decimals; sum it,
and tokens, only over `usage_scope = 'own'`.

```sql
SELECT agent_name, sum(cost_usd) AS usd FROM spans FINAL WHERE usage_scope = 'own' GROUP BY agent_name ORDER BY usd DESC
```

Rows are partitioned by `day` and [`retention`](retention.md) and deleted by whole parts, counted from `received_at`: an
import of old traces stays as long as what happens today. Changing a TTL copies no data of parts over 128 MiB.
"""


def table_reference() -> str:
    """`docs/tables.md`."""
    return "\n".join([_HEAD, *map(_table, TABLES), _views()])


def _table(table: Table) -> str:
    days = getattr(TtlDays(), table.name)
    lines = [
        f"## `{table.name}`",
        "",
        table.doc,
        "",
        f"Sorted by `{', '.join(table.order_by)}`; rows equal in these are one row"
        f"{f', the one with the highest `{table.version}`' if table.version else ''}. Kept {days} days "
        f"(`store.ttl_days.{table.name}`).",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{column.name}` | `{column.type}` | {column.doc.replace('|', chr(92) + '|')} |" for column in table.stored
    ]
    return "\n".join([*lines, ""])


def _views() -> str:
    parts = ["# Views", ""]
    for migration in migrations():
        for statement in migration.statements:
            if statement.startswith("CREATE VIEW"):
                name = statement.split()[5]
                parts += [f"## `{name}`", "", statement.rsplit("COMMENT '", 1)[1].rstrip("'"), ""]
                parts += ["```sql", statement.split("\n", 1)[1].rsplit("\nCOMMENT", 1)[0], "```", ""]
    return "\n".join(parts)
