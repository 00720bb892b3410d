"""What the migrations make is what the column tables say."""

from __future__ import annotations

import pytest

from spanwise.model import TABLES, Table
from spanwise.store.ddl import FIRST, render
from spanwise.store.migrate import migrations


def test_first_migration_is_written_from_the_column_tables() -> None:
    assert FIRST.read_text(encoding="utf-8") == render(), "run `python -m spanwise.store.ddl`"


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.id for migration in migrations()] == list(range(1, len(migrations()) + 1))


@pytest.mark.parametrize("migration", migrations(), ids=lambda migration: migration.name)
def test_every_statement_may_run_twice(migration: object) -> None:
    for statement in migration.statements:  # type: ignore[attr-defined]
        assert "IF NOT EXISTS" in statement.split("\n", 1)[0] or "IF EXISTS" in statement, statement[:80]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_partition_and_ttl_columns_exist_in_every_table(table: Table) -> None:
    assert {"tenant", "day", "received_at"} <= set(table.names)
