"""`ls` and `show`: what is in the warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.warehouse.queries import named_queries, pick, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse

By = Literal["subject", "layer", "role", "tensor"]


def ls(*, warehouse: str | Path = WAREHOUSE, listener: Listener = ignore) -> Result:
    """List the subjects, complete and interrupted.

    Raises:
        ConfigError: there is no such warehouse.
        WarehouseError: see `engine.errors`.
    """
    with Warehouse(warehouse, listener=listener).reading() as connection:
        return run_query(connection, named_queries("verbs")["ls"], {})


def show(
    subject: str | int,
    *,
    by: By = "layer",
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Result:
    """Look at one subject.

    Args:
        subject: its number, name, place, or the beginning of its name.
        by: one row for the `subject`, or for each `layer`, `role` or `tensor`.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such subject or warehouse.
        WarehouseError: see `engine.errors`.
    """
    query = pick(f"show_{by}", named_queries("verbs"), "view")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        return run_query(connection, query, {"subject_id": find_subject(connection, str(subject))})


def find_subject(connection: Connection, wanted: str) -> int:
    """Number of the subject that a user means; of several with one name the newest.

    Raises:
        ConfigError: none, or several names that begin like that.
    """
    query = named_queries("verbs")["find_subject"]
    rows = run_query(connection, query, {"wanted": wanted, "place": str(Path(wanted).absolute())}).rows
    best = min((distance for _, _, distance in rows), default=3)
    names = {name for _, name, distance in rows if distance == best}
    if best == 3:
        known = ", ".join(sorted(names)[:10]) or "none"
        raise ConfigError(f"no subject goes by {wanted!r}; there are: {known}")
    if len(names) > 1:
        raise ConfigError(f"{wanted!r} could be {', '.join(sorted(names)[:10])}")
    return int(next(i for i, _, distance in rows if distance == best))
