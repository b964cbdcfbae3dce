"""Differences that were counted before, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.nouns.records import Checkpoint
from engine.sketch import Sketch
from engine.warehouse.rows import Connection, all_rows, first_row
from engine.warehouse.sketches import read_sketches

_AT_ONCE = 32


def find_delta(connection: Connection, inventory: Checkpoint) -> int | None:
    """Number of the newest complete difference of two checkpoints as they are now, whatever its options.

    Args:
        connection: open for reading.
        inventory: the difference as a checkpoint.
    """
    row = first_row(
        connection,
        "SELECT subject_id FROM subjects WHERE uri = ? AND fingerprint = ? AND kind = 'delta' "
        "AND status = 'complete' ORDER BY subject_id DESC LIMIT 1",
        [inventory.uri, inventory.fingerprint],
    )
    return None if row is None else int(row[0])


def sketches_of(
    connection: Connection, subject_id: int, names: Sequence[str]
) -> Iterator[tuple[str, Sketch]]:
    """Read the counts of a subject's tensors, some at a time.

    Args:
        connection: open for reading.
        subject_id: of the subject.
        names: of the tensors that are wanted; those that were not counted are left out.

    Yields:
        name and sketch.
    """
    wanted = set(names)
    rows = all_rows(
        connection,
        "SELECT tensor_id, name FROM tensors WHERE subject_id = ? AND reason IS NULL ORDER BY tensor_id",
        [subject_id],
    )
    chosen = [(int(number), str(name)) for number, name in rows if name in wanted]
    for first in range(0, len(chosen), _AT_ONCE):
        some = dict(chosen[first : first + _AT_ONCE])
        for number, sketch in read_sketches(connection, list(some)).items():
            yield some[number], sketch
