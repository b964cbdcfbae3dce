"""`paper`: the tables and figures of arXiv 2501.10661 over whatever was scanned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.verbs.look import find_subject
from engine.verbs.scores import read_scores
from engine.warehouse.queries import Query, Value, named_queries, pick, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection, one_value
from engine.warehouse.store import Warehouse

_SUBJECTS = ("subject", "baseline", "a", "b")
"""Parameters that name a subject."""


def paper(
    table: str,
    *,
    subject: str | int | None = None,
    params: Mapping[str, Value] | None = None,
    scores: str | Path | None = None,
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Result:
    """One of the paper's tables or figures.

    Args:
        table: the name of a query of `sql/paper`, such as `table1` or `fig5`.
        subject: only this one, by number, name, place or the beginning of its name; all by default.
        params: values of the query's parameters; those that name a subject take the same words.
        scores: a CSV file with the columns `subject` and `score`, for the queries that set sigma against
            scores; by default these are those of the warehouse's runs.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such table, subject, parameter or warehouse, or a file of scores that is none.
        WarehouseError: see `engine.errors`.
    """
    query = pick(table, named_queries("paper"), "table")
    given = dict(params or {}) | ({} if subject is None else {"subject": str(subject)})
    if scores is not None and "scores" not in query.defaults:
        takers = ", ".join(q.name for q in papers() if "scores" in q.defaults)
        raise ConfigError(f"{table} has nothing to do with scores; these have: {takers}")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        for name in _SUBJECTS:
            if name in query.defaults and given.get(name) is not None:
                given[name] = _name_of(connection, str(given[name]))
        if scores is not None:
            given["scores"] = read_scores(scores, lambda wanted: find_subject(connection, wanted))
        return run_query(connection, query, given)


def papers() -> list[Query]:
    """List the tables and figures."""
    return list(named_queries("paper").values())


def _name_of(connection: Connection, wanted: str) -> str:
    number = find_subject(connection, wanted)
    return str(one_value(connection, "SELECT name FROM subjects WHERE subject_id = ?", [number]))
