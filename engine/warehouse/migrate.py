"""Schema versions: numbered, append-only migrations, and views that are replaced when they change."""

from __future__ import annotations

import hashlib

import duckdb
import numpy as np

from engine.errors import WarehouseError
from engine.nouns.dtypes import CODINGS, code_table
from engine.version import __version__
from engine.warehouse.columns import arrow, insert_arrow
from engine.warehouse.rows import Connection, all_rows, first_row, one_value
from engine.warehouse.sql_files import scripts

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL,
    engine_version VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS schema_views (digest VARCHAR NOT NULL);
"""


_STANDING = """
SELECT max(version), any_value(engine_version), (SELECT any_value(digest) FROM schema_views)
FROM schema_migrations
"""
_TABLES_AND_VIEWS = """
SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal
"""
_OUR_BOOKKEEPING = """
SELECT 1 FROM duckdb_columns() WHERE table_name = 'schema_migrations' AND column_name = 'engine_version'
"""


def is_current(connection: Connection, path: str) -> bool:
    """Whether the schema is exactly what this program writes.

    Raises:
        WarehouseError: it is not a warehouse of ours, or a newer one.
    """
    newest = len(scripts("migrations"))
    if _stands_at(connection, newest):
        return True
    version = _version(connection, path)
    if version > newest:
        raise WarehouseError(
            f"has schema {version}, this gaussmeter ({__version__}) knows up to {newest}: use a newer one",
            file=path,
        )
    return version == newest and _views(connection) == _digest()


def _stands_at(connection: Connection, newest: int) -> bool:
    """Whether the schema says so itself: asked at every opening, so it asks for as little as can be."""
    try:
        row = first_row(connection, _STANDING)
    except duckdb.Error:  # it lacks the tables, or they are somebody else's
        return False
    return row is not None and (row[0], row[2]) == (newest, _digest())


def migrate(connection: Connection, path: str) -> None:
    """Bring the schema up to date, each step in one transaction with the record that it ran.

    Raises:
        WarehouseError: it is not a warehouse of ours, or a newer one.
    """
    if is_current(connection, path):
        return
    connection.execute("BEGIN")
    version = _version(connection, path)
    connection.execute(_BOOKKEEPING)
    for number, script in enumerate(scripts("migrations"), start=1):
        if number > version:
            connection.execute(script.read_text(encoding="utf-8"))
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?, current_timestamp AT TIME ZONE 'UTC')",
                [number, script.stem, __version__],
            )
    _fill_codes(connection)
    for script in scripts("views"):
        connection.execute(script.read_text(encoding="utf-8"))
    connection.execute("DELETE FROM schema_views")
    connection.execute("INSERT INTO schema_views VALUES (?)", [_digest()])
    connection.execute("COMMIT")


def _version(connection: Connection, path: str) -> int:
    """Schema version, 0 for an empty database."""
    tables = {row[0] for row in all_rows(connection, _TABLES_AND_VIEWS)}
    if not tables:
        return 0
    if not all_rows(connection, _OUR_BOOKKEEPING):
        names = ", ".join(sorted(tables)[:3])
        raise WarehouseError(f"is a database of something else: it has the tables {names}", file=path)
    return int(one_value(connection, "SELECT coalesce(max(version), 0) FROM schema_migrations"))


def _views(connection: Connection) -> str:
    if not all_rows(connection, "SELECT 1 FROM duckdb_tables() WHERE table_name = 'schema_views'"):
        return ""
    row = first_row(connection, "SELECT digest FROM schema_views")
    return str(row[0]) if row else ""


def _digest() -> str:
    digest = hashlib.sha256()
    for script in scripts("views"):
        digest.update(script.name.encode() + b"\0" + script.read_bytes())
    return digest.hexdigest()


def _fill_codes(connection: Connection) -> None:
    known = {row[0] for row in all_rows(connection, "SELECT DISTINCT coding FROM codes")}
    for name, coding in CODINGS.items():
        if name in known:
            continue
        table = code_table(name)
        code = np.arange(coding.size, dtype=np.uint16)
        values = {"code": arrow(code), "value": arrow(table.value), "step": arrow(table.step)}
        insert_arrow(connection, "codes", values, coding=name)
