"""Bring a store to the schema this program knows, and prove that it deduplicates.

Every statement of a migration can run twice without harm, so programs that start at once on one server or cluster need
no lock: all apply, one row records it. A migration never changes once a release contains it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final
from uuid import uuid4

import pyarrow as pa

from spanwise.model import TABLES, Column, Table
from spanwise.store.cluster import LOCAL
from spanwise.store.connect import DEDUPLICATION_WINDOW, Store, load_sql
from spanwise.store.errors import StoreConfigError, StoreError
from spanwise.store.ttl import TtlOptions, class_of_tenant, ttl

LEDGER: Final = """CREATE TABLE IF NOT EXISTS schema_migrations
(
    id UInt32 COMMENT 'Number of the migration file.',
    name String COMMENT 'Its name.',
    checksum String COMMENT 'Of its text.',
    applied_at DateTime('UTC') DEFAULT now() COMMENT 'When it was applied.'
)
ENGINE = ReplacingMergeTree
ORDER BY id
COMMENT 'The migrations this database has.'"""

_NO_SUCH_TABLE: Final = frozenset({60, 81})
_RACING: Final = frozenset({517})
"""CANNOT_ASSIGN_ALTER: another start changed the table meanwhile."""
_RACES_MAX: Final = 10
_RACE_PAUSE_S: Final = 0.3

_TTL: Final = re.compile(r" TTL (.*) SETTINGS ")


@dataclass(frozen=True, slots=True)
class Migration:
    id: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def statements(self) -> list[str]:
        return split(self.text)


def split(sql: str) -> list[str]:
    """The statements of a file: each ends with a semicolon at the end of a line."""
    return [part.strip().removesuffix(";") for part in re.split(r"(?<=;)\n", sql) if part.strip()]


def migrations() -> list[Migration]:
    """The migrations of this program, in order."""
    folder = resources.files("spanwise.store") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [
        Migration(int(name[:4]), name.removesuffix(".sql"), (folder / name).read_text(encoding="utf-8"))
        for name in names
    ]


def migrate(store: Store, known: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing and return the names of it.

    Raises StoreConfigError if the store is newer than this program or was built from other migrations.
    """
    known = migrations() if known is None else known
    store.command(store.cluster.ledger(LEDGER) if store.cluster else LEDGER)
    missing = _missing(store, known)
    for migration in missing:
        for statement in migration.statements:
            for said in store.cluster.statements(statement) if store.cluster else [statement]:
                store.command(said)
        store.command(
            "INSERT INTO schema_migrations (id, name, checksum) SELECT {id:UInt32}, {name:String}, {checksum:String}",
            {"id": migration.id, "name": migration.name, "checksum": migration.checksum},
        )
    return [migration.name for migration in missing]


def _missing(store: Store, known: Sequence[Migration]) -> list[Migration]:
    """The migrations that a store has not. Raises StoreConfigError if it has others."""
    applied = {
        row["id"]: row for row in store.read_arrow("SELECT id, name, checksum FROM schema_migrations FINAL").to_pylist()
    }
    newest = max(applied, default=0)
    if newest > len(known):
        raise StoreConfigError(
            f"the store in {store.place} has schema {newest}, this program knows schema {len(known)}: "
            "run the newer program that wrote it, or use another store"
        )
    for migration in known:
        if migration.id in applied and applied[migration.id]["checksum"] != migration.checksum:
            raise StoreConfigError(
                f"the store in {store.place} was made with another version of migration {migration.name} (a "
                "development build): use another store, or remove this one"
            )
    return [migration for migration in known if migration.id not in applied]


def check_schema(store: Store) -> None:
    """Raise StoreConfigError unless the store has exactly the schema of this program; changes nothing."""
    try:
        missing = _missing(store, migrations())
    except StoreError as error:
        if error.code not in _NO_SUCH_TABLE:
            raise
        missing = migrations()
    if missing:
        raise StoreConfigError(
            f"the store in {store.place} lacks migration {missing[0].name} and store.migrate is off: run "
            "`spanwise migrate` with a user that may create tables"
        )


def apply_options(store: Store, options: TtlOptions) -> list[str]:
    """Make TTLs, and the fsync of the embedded engine, what the configuration says; returns the statements it took.

    A changed TTL rewrites no data: only the deletion times beside the parts are computed again.
    """
    for _ in range(_RACES_MAX):
        statements = _option_statements(store, options)
        try:
            for statement in statements:
                for said in store.cluster.statements(statement) if store.cluster else [statement]:
                    store.command(said)
        except StoreError as error:
            if error.code not in _RACING:
                raise
            time.sleep(_RACE_PAUSE_S)
        else:
            return statements
    raise StoreConfigError(f"the tables in {store.place} are being changed all the time: is another start doing it?")


def _option_statements(store: Store, options: TtlOptions) -> list[str]:
    """What the tables lack of what the options say: the class of a tenant first, since the TTL asks for it."""
    rows = store.read_arrow(load_sql("spanwise.store", "options")).to_pylist()
    found = {row["name"].removesuffix(LOCAL if store.cluster else ""): row for row in rows}
    statements = []
    for table in TABLES:
        engine = found[table.name]["engine"]
        if found[table.name]["class_of_tenant"] != (wanted := class_of_tenant(options)):
            statements.append(f"ALTER TABLE {table.name} MODIFY COLUMN retention DEFAULT {wanted}")
        have = match[1] if (match := _TTL.search(engine)) else ""
        if have != (want := ttl(options, table.name)):
            statements.append(f"ALTER TABLE {table.name} {f'MODIFY TTL {want}' if want else 'REMOVE TTL'}")
        if store.embedded and "fsync_after_insert = 1" not in engine:
            statements.append(
                f"ALTER TABLE {table.name} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1"
            )
    return statements


_PROBE_COLUMNS: Final = (
    Column("day", "Date", pa.date32(), ""),
    Column("id", "UInt64", pa.uint64(), ""),
)


def prove_deduplication(store: Store, new_id: Callable[[], str] = lambda: uuid4().hex) -> None:
    """Insert twice under one token into a scratch table with a materialised view; both must have the rows once.

    Raises StoreConfigError if not: a crash would then count spans twice in whatever hangs on the tables.
    """
    probe = Table(f"probe_{new_id()}", "", _PROBE_COLUMNS, ("id",), shard_by="cityHash64(id)")
    batch = pa.record_batch([pa.array([0, 1, 1], pa.date32()), pa.array([1, 2, 3], pa.uint64())], schema=probe.arrow)

    def run(name: str) -> None:
        sql = load_sql("spanwise.store", name).format(probe=probe.name, window=DEDUPLICATION_WINDOW)
        for statement in split(sql):
            for said in store.cluster.statements(statement, (probe,)) if store.cluster else [statement]:
                store.command(said)

    # A cluster is asked through the tables it has: there are no views on them.
    kind = "probe_cluster" if store.cluster else "probe"
    try:
        run(f"{kind}_create")
        for _ in range(2):
            store.insert(probe, batch, "probe")
        counted = load_sql("spanwise.store", f"{kind}_count").format(probe=probe.name)
        counts = store.read_arrow(counted).to_pylist()[0]
    finally:
        run(f"{kind}_drop")
    if counts != {"direct": batch.num_rows, "through_view": batch.num_rows}:
        raise StoreConfigError(
            f"the store in {store.place} does not deduplicate repeated inserts (3 rows sent twice gave "
            f"{counts['direct']} in the table and {counts['through_view']} behind a materialised view): use ClickHouse "
            "24.7 or newer, and no proxy that drops insert settings"
        )


def prepare(store: Store) -> list[str]:
    """Migrate, apply options and prove deduplication; returns the migrations and statements that took.

    With `migrate` off it only checks the schema.

    Raises StoreConfigError if the store cannot be used, StoreError if it cannot be reached.
    """
    if not store.config.migrate:
        check_schema(store)
        return []
    done = [*migrate(store), *apply_options(store, store.config)]
    prove_deduplication(store)
    return done


def open_store(store: Store) -> Store:
    """Prepare a store; closes it if it cannot be used."""
    try:
        prepare(store)
    except BaseException:
        store.close()
        raise
    return store
