"""Small answers from a connection, always fetched to their end: until then DuckDB keeps it busy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

Connection = duckdb.DuckDBPyConnection
Row = tuple[Any, ...]

LOCKED_DOWN = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}
"""Settings of every connection: DuckDB fetches nothing from anywhere."""


def one_line(error: Exception) -> str:
    """First paragraph of DuckDB's message, on one line."""
    return " ".join(str(error).split("\n\nLINE")[0].split())[:600]


def all_rows(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
    """Every row of a query."""
    return connection.execute(sql, list(parameters)).fetchall()


def first_row(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> Row | None:
    """The first row of a query, None when it has none."""
    rows = all_rows(connection, sql, parameters)
    return rows[0] if rows else None


def one_value(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> Any:
    """The value of a query of one row and one column."""
    ((value,),) = all_rows(connection, sql, parameters)
    return value
