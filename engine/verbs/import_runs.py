"""Runs and refusals that another warehouse has exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import FormatError, MissingError
from engine.nouns.records import SourceFile
from engine.warehouse.exchange import identity_of
from engine.warehouse.refusals import read_refusals, refusal_shape, take_in_refusals
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.run_import import read_run, run_shapes, take_in_run
from engine.warehouse.store import Warehouse


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one subject, or of one run.

    Attributes:
        subject: its name, or its folders' where that cannot be read.
        key: the name of its folders.
        status: `imported`, `unchanged` (it was here already), `added` (it was here, and what is known of its
            rows and columns came to it) or `refused`.
        subject_id: its number here.
        reason: why it was refused; or what was left out.
    """

    subject: str
    key: str
    status: str
    subject_id: int | None = None
    reason: str = ""


def import_runs(
    store: Warehouse, keys: Sequence[str], files: Mapping[str, SourceFile]
) -> tuple[Imported, ...]:
    """Take in runs, each in one transaction.

    Args:
        store: where to.
        keys: the names of their folders.
        files: what is there, by path.

    Returns:
        what became of each.
    """
    if not keys:
        return ()
    with store.reading() as connection:
        expected = run_shapes(connection)
    done = []
    for key in keys:
        name = key
        try:
            incoming = read_run(key, files, expected)
            name = incoming.name
            wanted = incoming.row["subject_key"]
            with store.writing() as connection:
                subject_id = subjects_by_identity(connection).get(wanted) if wanted else None
                _, status = take_in_run(connection, incoming, expected, subject_id)
        except (FormatError, MissingError) as error:
            done.append(Imported(name, key, "refused", reason=str(error)))
            continue
        lost = status == "imported" and wanted and subject_id is None
        reason = f"without the subject of its dW, {wanted}, which is not here" if lost else ""
        done.append(Imported(name, key, status, subject_id, reason))
    return tuple(done)


def import_refusals(store: Warehouse, source: SourceFile | None) -> tuple[int, str]:
    """Take in what was refused elsewhere.

    Args:
        store: where to.
        source: the file; None if there is none.

    Returns:
        how many rows were not known here, and why the file cannot be read, "" if it can.
    """
    if source is None:
        return 0, ""
    try:
        with store.reading() as connection:
            shape = refusal_shape(connection)
        rows = read_refusals(source, shape)
        with store.writing() as connection:
            return take_in_refusals(connection, rows), ""
    except (FormatError, MissingError) as error:
        return 0, str(error)


def subjects_by_identity(connection: Connection) -> dict[str, int]:
    """Numbers of all complete subjects here, by what they are the same by everywhere."""
    rows = all_rows(
        connection,
        "SELECT uri, fingerprint, kind, spec::VARCHAR, subject_id FROM subjects WHERE status = 'complete' "
        "ORDER BY subject_id",
    )
    return {identity_of(*row[:4]): int(row[4]) for row in rows}
