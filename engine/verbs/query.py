"""`sql`: ask the warehouse anything, read-only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.warehouse.queries import Query, Value, find_query, named_queries, run_query
from engine.warehouse.result import Result
from engine.warehouse.store import Warehouse


def sql(
    query: str,
    *,
    warehouse: str | Path = WAREHOUSE,
    params: Mapping[str, Value] | None = None,
    listener: Listener = ignore,
) -> Result:
    """Run SQL against the warehouse, without write access and without access to any other file.

    Args:
        query: SQL, the path of a .sql file, or the name of a query of `sql/queries`.
        warehouse: the DuckDB file.
        params: values of the query's `$name` parameters.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: the query is wrong or unknown, or there is no such warehouse.
        WarehouseError: see `engine.errors`.
    """
    chosen = find_query(query)
    with Warehouse(warehouse, listener=listener).reading() as connection:
        return run_query(connection, chosen, params or {})


def questions() -> list[Query]:
    """List the named queries."""
    return list(named_queries().values())
