"""`paper`: the tables of arXiv 2501.10661 over whatever was scanned."""

from __future__ import annotations

from pathlib import Path

from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.verbs.look import find_subject
from engine.warehouse.queries import named_queries, pick, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import one_value
from engine.warehouse.store import Warehouse


def paper(
    table: str,
    *,
    subject: str | int | None = None,
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Result:
    """One of the paper's tables.

    Args:
        table: `table1` or `table5`.
        subject: only this one, by number, name, place or the beginning of its name; all by default.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such table, subject or warehouse.
        WarehouseError: see `engine.errors`.
    """
    query = pick(table, named_queries("paper"), "table")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        if subject is None:
            return run_query(connection, query, {})
        number = find_subject(connection, str(subject))
        name = one_value(connection, "SELECT name FROM subjects WHERE subject_id = ?", [number])
        return run_query(connection, query, {"subject": name})
