"""`nearest`: whose sigma profile is similar? So one finds the base that a model was tuned from."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.prefixes import bare
from engine.verbs.look import find_subject
from engine.warehouse.columns import insert_records
from engine.warehouse.queries import Value, named_queries, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.store import Warehouse

KINDS = ("checkpoint", "delta", "adapter", "merge", "edit", "simulation", "observation", "all")
"""What `kind` may be."""


def nearest(
    subject: str | int,
    *,
    limit: int | None = 10,
    kind: str | None = None,
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Result:
    """Find the subjects whose sigma profiles are the closest to that of one.

    The profile is the sigma of each matrix. `distance` is the root mean square of ln(sigma_1 / sigma_2) over
    the matrices that both have, 0.01 for a typical difference of 1 %; `correlation` that of the logarithms.

    Args:
        subject: its number, name, place, or the beginning of its name.
        limit: how many; all when None.
        kind: only of this kind, of `KINDS`. By default deltas and adapters are compared with each other, and
            everything else likewise.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Returns:
        a row for each subject that shares a matrix with it, the nearest first.

    Raises:
        ConfigError: no such subject, kind or warehouse.
        WarehouseError: see `engine.errors`.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"there is no kind {kind!r}; there are: {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit is at least 1, not {limit}")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        subject_id = find_subject(connection, str(subject))
        _keep_keys(connection, subject_id)
        given: dict[str, Value] = {"subject_id": subject_id, "kind": kind, "limit": limit}
        return run_query(connection, named_queries("verbs")["nearest"], given)


def _keep_keys(connection: Connection, subject_id: int) -> None:
    """Make the table of all names that, without wrappers, are those of the subject's tensors."""
    own = all_rows(connection, "SELECT name FROM tensors WHERE subject_id = ?", [subject_id])
    wanted = {bare(name) for (name,) in own}
    everywhere = all_rows(connection, "SELECT DISTINCT name FROM tensors ORDER BY name")
    keys = [{"name": name, "key": bare(name)} for (name,) in everywhere if bare(name) in wanted]
    connection.execute("CREATE TEMP TABLE keys (name VARCHAR, key VARCHAR)")
    if keys:
        insert_records(connection, "keys", keys)
