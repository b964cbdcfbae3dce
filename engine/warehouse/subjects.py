"""The life of a subject: begun, resumed after a crash, finished, discarded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.bands.packing import unpack_bands
from engine.execution.fold import Partial
from engine.nouns.matrices import measured_matrix
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
        spectra: ordinals of the tensors whose singular values are in.
        added: whether it was complete but for what is measured of rows, columns and singular values.
    """

    subject_id: int
    name: str
    complete: bool = False
    resumed: bool = False
    done: frozenset[int] = frozenset()
    partials: dict[int, Partial[Sketch]] = field(default_factory=dict)
    spectra: frozenset[int] = frozenset()
    added: bool = False


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
    iid: int | None = None,
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
        iid: None if rows and columns are not measured; else the largest smaller side of matrices whose
            singular values are wanted too, 0 for none.
    """
    identity = [checkpoint.uri, checkpoint.fingerprint, kind, canonical(spec)]
    if force:
        running = f"SELECT subject_id FROM subjects WHERE {_IDENTITY} AND status = 'running'"
        for (old,) in all_rows(connection, running, identity):
            discard(connection, old)
    else:
        found = first_row(
            connection,
            f"SELECT subject_id, name, status, coalesce(iid, -1) FROM subjects WHERE {_IDENTITY} "
            "ORDER BY status, subject_id DESC",
            identity,
        )
        if found and found[2] == "complete" and (iid is None or found[3] >= iid):
            forget_refusals(connection, [checkpoint.uri])
            return Standing(found[0], found[1], complete=True)
        if found:
            standing = _interrupted(connection, found[0], found[1], checkpoint, iid is not None)
            return replace(standing, added=True) if found[2] == "complete" else standing
    subject_id = one_value(
        connection,
        "INSERT INTO subjects SELECT nextval('subject_numbers'), "
        f"?, ?, ?, ?, ?, ?, ?::INTEGER[], ?, ?, ?, ?, {NOW}, NULL, 'running', NULL "
        "RETURNING subject_id",
        [name, kind, checkpoint.uri, checkpoint.revision, checkpoint.fingerprint, checkpoint.format,
         list(parents), canonical(spec), __version__, len(checkpoint.files), checkpoint.nbytes],
    )  # fmt: skip
    return Standing(int(subject_id), name)


def _interrupted(
    connection: Connection, subject_id: int, name: str, checkpoint: Checkpoint, iid: bool
) -> Standing:
    """What is there of a subject. Where rows and columns are wanted, what lacks them does not count."""
    rows = all_rows(
        connection,
        "SELECT ordinal, t.reason IS NOT NULL OR t.alias_of IS NOT NULL OR i.tensor_id IS NOT NULL, "
        "i.singular_values IS NOT NULL FROM tensors t LEFT JOIN iid i USING (tensor_id) WHERE subject_id = ?",
        [subject_id],
    )
    partials = all_rows(
        connection,
        "SELECT ordinal, spans, codes, n, low_sum, low_square_sum, zeros, min, max, bands "
        "FROM partials WHERE subject_id = ?",
        [subject_id],
    )
    found = {row[0]: _partial(checkpoint.tensors[row[0]], row[1:]) for row in partials}
    return Standing(
        subject_id,
        name,
        resumed=True,
        done=frozenset(ordinal for ordinal, measured, _ in rows if measured or not iid),
        partials={i: p for i, p in found.items() if not iid or _is_measured(checkpoint.tensors[i], p)},
        spectra=frozenset(ordinal for ordinal, _, spectrum in rows if spectrum),
    )


def _is_measured(info: TensorInfo, partial: Partial[Sketch]) -> bool:
    return partial.found.bands is not None or measured_matrix(info) is None


def _partial(info: TensorInfo, row: tuple[object, ...]) -> Partial[Sketch]:
    spans, codes, n, low, square, zeros, minimum, maximum, bands = row
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
        None if bands is None else unpack_bands(bytes(bands)),  # type: ignore[call-overload]
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


def finish(connection: Connection, subject_id: int, iid: int | None = None) -> None:
    """Mark a subject complete, and drop older ones that a forced scan has replaced; `iid` as for `begin`."""
    forget_partials(connection, subject_id)
    uri = one_value(connection, "SELECT uri FROM subjects WHERE subject_id = ?", [subject_id])
    forget_refusals(connection, [uri])
    connection.execute(
        f"UPDATE subjects SET status = 'complete', finished_at = {NOW} "
        "WHERE subject_id = ? AND status = 'running'",
        [subject_id],
    )
    if iid is not None:
        connection.execute(
            "UPDATE subjects SET iid = greatest(coalesce(iid, 0), ?) WHERE subject_id = ?", [iid, subject_id]
        )
    replaced = all_rows(
        connection,
        "SELECT o.subject_id FROM subjects o JOIN subjects s USING (uri, fingerprint, kind) "
        "WHERE s.subject_id = ? AND o.subject_id < s.subject_id AND o.spec::VARCHAR = s.spec::VARCHAR",
        [subject_id],
    )
    for (old,) in replaced:
        discard(connection, old)


def discard_others(connection: Connection, subject_id: int) -> None:
    """Remove the subjects of the same place, kind and options whose counts are others."""
    others = all_rows(
        connection,
        "SELECT o.subject_id FROM subjects o JOIN subjects s USING (uri, kind) "
        "WHERE s.subject_id = ? AND o.subject_id != s.subject_id AND o.spec::VARCHAR = s.spec::VARCHAR",
        [subject_id],
    )
    for (other,) in others:
        discard(connection, other)


def forget_refusals(connection: Connection, uris: Sequence[str]) -> None:
    """Forget that a census could not take in what is in now, whatever its options were."""
    connection.execute("DELETE FROM refusals WHERE list_contains(?::VARCHAR[], uri)", [list(uris)])


def forget_partials(connection: Connection, subject_id: int) -> None:
    """Remove what an interrupted scan knows of tensors that it had begun."""
    connection.execute("DELETE FROM partials WHERE subject_id = ?", [subject_id])


def discard(connection: Connection, subject_id: int) -> None:
    """Remove every trace of a subject."""
    for table in ("bins", "filtered", "iid"):
        connection.execute(
            f"DELETE FROM {table} WHERE tensor_id IN (SELECT tensor_id FROM tensors WHERE subject_id = ?)",
            [subject_id],
        )
    for table in ("tensors", "partials", "subjects"):
        connection.execute(f"DELETE FROM {table} WHERE subject_id = ?", [subject_id])
