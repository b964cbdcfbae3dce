"""The life of a subject: begun, resumed after a crash, finished, discarded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.execution.fold import Partial
from engine.nouns.records import Checkpoint, TensorInfo
from engine.sketch import Sketch
from engine.version import __version__
from engine.warehouse.rows import Connection, all_rows, first_row, one_value

Spec = Mapping[str, object]

NOW = "current_timestamp AT TIME ZONE 'UTC'"
_IDENTITY = "uri = ? AND fingerprint = ? AND kind = ? AND spec::VARCHAR = ?"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the warehouse knows of a subject when its scan begins.

    Attributes:
        subject_id: its number.
        name: its name.
        complete: whether nothing is left to do.
        resumed: whether an interrupted scan is taken up.
        done: ordinals of the tensors whose rows are in.
        partials: tensors that were begun, by ordinal.
    """

    subject_id: int
    name: str
    complete: bool = False
    resumed: bool = False
    done: frozenset[int] = frozenset()
    partials: dict[int, Partial[Sketch]] = field(default_factory=dict)


def canonical(spec: Spec) -> str:
    """One text for equal options."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"))


def begin(
    connection: Connection,
    checkpoint: Checkpoint,
    *,
    name: str,
    spec: Spec,
    force: bool,
    kind: str = "checkpoint",
    parents: Sequence[int] = (),
) -> Standing:
    """Find a subject or enter it.

    Args:
        connection: in a transaction.
        checkpoint: what is to be scanned.
        name: the subject's name, if it is new.
        spec: the options that decide what the rows say.
        force: enter it anew even when it is complete, and drop what an interrupted scan left.
        kind: what it is.
        parents: numbers of the subjects that it was derived from.
    """
    identity = [checkpoint.uri, checkpoint.fingerprint, kind, canonical(spec)]
    if force:
        running = f"SELECT subject_id FROM subjects WHERE {_IDENTITY} AND status = 'running'"
        for (old,) in all_rows(connection, running, identity):
            discard(connection, old)
    else:
        found = first_row(
            connection,
            f"SELECT subject_id, name, status FROM subjects WHERE {_IDENTITY} "
            "ORDER BY status, subject_id DESC",
            identity,
        )
        if found and found[2] == "complete":
            return Standing(found[0], found[1], complete=True)
        if found:
            return _interrupted(connection, found[0], found[1], checkpoint)
    subject_id = one_value(
        connection,
        "INSERT INTO subjects SELECT nextval('subject_numbers'), "
        f"?, ?, ?, ?, ?, ?, ?::INTEGER[], ?, ?, ?, ?, {NOW}, NULL, 'running' "
        "RETURNING subject_id",
        [name, kind, checkpoint.uri, checkpoint.revision, checkpoint.fingerprint, checkpoint.format,
         list(parents), canonical(spec), __version__, len(checkpoint.files), checkpoint.nbytes],
    )  # fmt: skip
    return Standing(int(subject_id), name)


def _interrupted(connection: Connection, subject_id: int, name: str, checkpoint: Checkpoint) -> Standing:
    rows = all_rows(connection, "SELECT ordinal FROM tensors WHERE subject_id = ?", [subject_id])
    partials = all_rows(
        connection,
        "SELECT ordinal, spans, codes, n, low_sum, low_square_sum, zeros, min, max "
        "FROM partials WHERE subject_id = ?",
        [subject_id],
    )
    found = {row[0]: _partial(checkpoint.tensors[row[0]], row[1:]) for row in partials}
    return Standing(subject_id, name, resumed=True, done=frozenset(r[0] for r in rows), partials=found)


def _partial(info: TensorInfo, row: tuple[object, ...]) -> Partial[Sketch]:
    spans, codes, n, low, square, zeros, minimum, maximum = row
    coding = info.coding
    assert coding is not None
    flat = np.asarray(spans).tolist()
    sketch = Sketch(
        coding.name,
        np.asarray(codes, np.uint16),
        np.asarray(n, np.uint64),
        None if low is None else np.asarray(low, np.uint64),
        None if square is None else np.asarray(square, np.uint64),
        int(str(zeros)),
        float(str(minimum)),
        float(str(maximum)),
    )
    return Partial(tuple(zip(flat[::2], flat[1::2], strict=True)), sketch)


def find_complete(connection: Connection, checkpoint: Checkpoint) -> int | None:
    """Number of the newest complete subject of a checkpoint as it is now, whatever its options."""
    row = first_row(
        connection,
        "SELECT subject_id FROM subjects WHERE uri = ? AND fingerprint = ? AND kind = 'checkpoint' "
        "AND status = 'complete' ORDER BY subject_id DESC LIMIT 1",
        [checkpoint.uri, checkpoint.fingerprint],
    )
    return None if row is None else int(row[0])


def forget_others(connection: Connection, checkpoint: Checkpoint, kind: str) -> None:
    """Remove what was begun of a place and will not be gone on with, because it is another thing now."""
    wanted = [checkpoint.uri, kind, checkpoint.fingerprint]
    others = "uri = ? AND kind = ? AND fingerprint != ? AND status = 'running'"
    for (old,) in all_rows(connection, f"SELECT subject_id FROM subjects WHERE {others}", wanted):
        discard(connection, old)


def settle(connection: Connection, subject_id: int, checkpoint: Checkpoint) -> None:
    """Note what a subject that was written is now, so that it is known again."""
    connection.execute(
        "UPDATE subjects SET fingerprint = ?, format = ? WHERE subject_id = ?",
        [checkpoint.fingerprint, checkpoint.format, subject_id],
    )


def find_written(connection: Connection, checkpoint: Checkpoint, kind: str) -> tuple[int, str] | None:
    """Number and name of the newest complete subject of a kind that is as it is now."""
    row = first_row(
        connection,
        "SELECT subject_id, name FROM subjects WHERE uri = ? AND fingerprint = ? AND kind = ? "
        "AND status = 'complete' ORDER BY subject_id DESC LIMIT 1",
        [checkpoint.uri, checkpoint.fingerprint, kind],
    )
    return None if row is None else (int(row[0]), str(row[1]))


def is_there(connection: Connection, subject_id: int) -> bool:
    """Whether a subject that was begun has not been discarded by somebody else."""
    return (
        connection.execute("SELECT 1 FROM subjects WHERE subject_id = ?", [subject_id]).fetchone() is not None
    )


def finish(connection: Connection, subject_id: int) -> None:
    """Mark a subject complete, and drop older ones that a forced scan has replaced."""
    connection.execute("DELETE FROM partials WHERE subject_id = ?", [subject_id])
    connection.execute(
        f"UPDATE subjects SET status = 'complete', finished_at = {NOW} "
        "WHERE subject_id = ? AND status = 'running'",
        [subject_id],
    )
    replaced = all_rows(
        connection,
        "SELECT o.subject_id FROM subjects o JOIN subjects s USING (uri, fingerprint, kind) "
        "WHERE s.subject_id = ? AND o.subject_id < s.subject_id AND o.spec::VARCHAR = s.spec::VARCHAR",
        [subject_id],
    )
    for (old,) in replaced:
        discard(connection, old)


def discard(connection: Connection, subject_id: int) -> None:
    """Remove every trace of a subject."""
    for table in ("bins", "filtered"):
        connection.execute(
            f"DELETE FROM {table} WHERE tensor_id IN (SELECT tensor_id FROM tensors WHERE subject_id = ?)",
            [subject_id],
        )
    for table in ("tensors", "partials", "subjects"):
        connection.execute(f"DELETE FROM {table} WHERE subject_id = ?", [subject_id])
