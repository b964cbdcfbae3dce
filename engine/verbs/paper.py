"""`paper`: the tables of arXiv 2501.10661 over whatever was scanned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.warehouse.queries import Value, named_queries, pick, run_query
from engine.warehouse.result import Result
from engine.warehouse.store import Warehouse


def paper(
    table: str,
    *,
    warehouse: str | Path = WAREHOUSE,
    params: Mapping[str, Value] | None = None,
    listener: Listener = ignore,
) -> Result:
    """One of the paper's tables.

    Args:
        table: `table1` or `table5`.
        warehouse: the DuckDB file.
        params: values of the query's parameters, such as `subject`.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such table or warehouse.
        WarehouseError: see `engine.errors`.
    """
    query = pick(table, named_queries("paper"), "table")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        return run_query(connection, query, params or {})
