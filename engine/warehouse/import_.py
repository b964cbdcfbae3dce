"""From Parquet files into the warehouse, a subject in a transaction; nothing in them is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from engine.errors import FormatError
from engine.nouns.records import SourceFile
from engine.warehouse.exchange import (
    SUBJECTS,
    Manifest,
    file_of,
    identity_of,
    parse_mark,
)
from engine.warehouse.parquet import open_parquet
from engine.warehouse.queries import named_queries
from engine.warehouse.rows import Connection, first_row, one_value
from engine.warehouse.sound import (
    Shape,
    check_rows,
    columns_of,
    in_order,
    read_head,
    shape_of,
    sound,
    sources_of,
)
from engine.warehouse.subjects import canonical, discard

_DEPTH = "SELECT iid FROM subjects WHERE subject_id = ?"
_KEPT = ("tensors", "filtered", "bins", "iid")  # the numbers of `tensor_stats` are worked out from these


@dataclass(frozen=True, slots=True)
class Incoming:
    """A subject that is offered.

    Attributes:
        key: the name of its folders.
        identity: what it is the same by everywhere.
        row: its row in `subjects`.
        manifest: what its export says of itself.
        sources: the file of each table.
    """

    key: str
    identity: str
    row: dict[str, Any]
    manifest: Manifest
    sources: dict[str, SourceFile]

    @property
    def finished_at(self) -> datetime:
        """When it was counted."""
        at: datetime = self.row["finished_at"]
        return at


def shapes(connection: Connection) -> dict[str, Shape]:
    """What files must look like that are to go into this warehouse."""
    required = frozenset({"ordinal", "finished_at"})
    queries = {SUBJECTS: "export_subject", **{table: f"export_{table}" for table in _KEPT}}
    return {table: shape_of(connection, query, table, required) for table, query in queries.items()}


def read_incoming(key: str, files: Mapping[str, SourceFile], expected: Mapping[str, Shape]) -> Incoming:
    """Read what an export says of a subject, and whether its files are there.

    Args:
        key: the name of its folders.
        files: what is there, by path.
        expected: from `shapes`.

    Raises:
        FormatError: it is incomplete, damaged, foreign or newer.
    """
    path = file_of(SUBJECTS, key)
    if path not in files:
        raise FormatError(f"has no {path}: its export was interrupted; export it again", file=key)
    source = files[path]
    row, manifest = read_head(source, expected[SUBJECTS])
    identity = identity_of(row["uri"], row["fingerprint"], row["kind"], _spec(row["spec"], source.uri))
    if key.rpartition("@")[2] != identity:
        raise FormatError(f"is of the subject {identity}, but lies in the folder of {key}", file=source.uri)
    return Incoming(key, identity, row, manifest, sources_of(key, files, manifest))


def _spec(text: str, file: str) -> str:
    try:
        spec = json.loads(text)
        if isinstance(spec, dict) and canonical(spec) == text:
            return text
    except (ValueError, RecursionError) as error:
        raise FormatError("has a spec that is no JSON", file=file) from error
    raise FormatError("has a spec that this program would not have written", file=file)


def find_known(connection: Connection, row: Mapping[str, Any], status: str) -> int | None:
    """Number of the same subject, if it is here with this status."""
    found = first_row(
        connection,
        "SELECT subject_id FROM subjects WHERE uri = ? AND fingerprint = ? AND kind = ? "
        "AND spec::VARCHAR = ? AND status = ? ORDER BY subject_id DESC",
        [row["uri"], row["fingerprint"], row["kind"], row["spec"], status],
    )
    return int(found[0]) if found else None


def take_in(
    connection: Connection, incoming: Incoming, expected: Mapping[str, Shape], parent_ids: Sequence[int]
) -> int:
    """Write the rows of a subject under new numbers, and look whether they agree with each other.

    Args:
        connection: in a transaction, which the caller undoes if this fails.
        incoming: the subject.
        expected: from `shapes`.
        parent_ids: numbers of its parents here.

    Returns:
        its number.

    Raises:
        FormatError: a file is damaged or foreign, or its rows contradict each other.
    """
    interrupted = find_known(connection, incoming.row, "running")
    if interrupted is not None:
        discard(connection, interrupted)
    row = {**incoming.row, "name": incoming.row["subject"], "parent_ids": list(parent_ids)}
    del row["subject"]
    subject_id = int(
        one_value(
            connection,
            "INSERT INTO subjects BY NAME SELECT nextval('subject_numbers') AS subject_id, "
            f"'complete' AS status, {', '.join(f'? AS {name}' for name in row)} RETURNING subject_id",
            list(row.values()),
        )
    )
    for table in (t for t in _KEPT if t in incoming.sources):
        with open_parquet(incoming.sources[table]) as file:
            _take_table(connection, file, table, incoming, expected[table], subject_id)
    _check_sums(connection, subject_id, incoming.sources["bins"].uri)
    return subject_id


def order_is_deeper(connection: Connection, subject_id: int, incoming: Incoming) -> bool:
    """Whether an export knows more of rows, columns and singular values than is known here of its subject."""
    offered, here = incoming.row.get("iid"), one_value(connection, _DEPTH, [subject_id])
    return "iid" in incoming.sources and offered is not None and (here is None or offered > here)


def add_order(
    connection: Connection, incoming: Incoming, expected: Mapping[str, Shape], subject_id: int
) -> None:
    """Put what an export knows of rows and columns in the place of what is known here.

    Args:
        connection: in a transaction, which the caller undoes if this fails.
        incoming: a subject that is here without.
        expected: from `shapes`.
        subject_id: its number here.

    Raises:
        FormatError: as for `take_in`.
    """
    connection.execute(
        "DELETE FROM iid WHERE tensor_id IN (SELECT tensor_id FROM tensors WHERE subject_id = ?)",
        [subject_id],
    )
    with open_parquet(incoming.sources["iid"]) as file:
        _take_table(connection, file, "iid", incoming, expected["iid"], subject_id)
    connection.execute("UPDATE subjects SET iid = ? WHERE subject_id = ?", [incoming.row["iid"], subject_id])


def _check_sums(connection: Connection, subject_id: int, uri: str) -> None:
    edges = first_row(
        connection,
        "SELECT coalesce(min(tensor_id), 0), coalesce(max(tensor_id), 0) FROM tensors WHERE subject_id = ?",
        [subject_id],
    )
    assert edges is not None
    parameters = {"subject_id": subject_id, "first": edges[0], "last": edges[1]}
    rows = connection.execute(named_queries("verbs")["import_check"].sql, parameters).fetchall()
    for name, problem in rows:
        raise FormatError(problem, file=uri, tensor=name)


_NUMBERED = """
INSERT INTO tensors BY NAME
SELECT * EXCLUDE (subject), ?::INTEGER AS subject_id,
    (SELECT coalesce(max(tensor_id), 0) FROM tensors) + row_number() OVER (ORDER BY ordinal) AS tensor_id
FROM new_rows
"""
_BELONGING = """
INSERT INTO {table} BY NAME
SELECT new_rows.* EXCLUDE (ordinal), t.tensor_id
FROM new_rows JOIN tensors t ON t.ordinal = new_rows.ordinal AND t.subject_id = ?::INTEGER
"""


def _take_table(
    connection: Connection,
    file: parquet.ParquetFile,
    table: str,
    incoming: Incoming,
    shape: Shape,
    subject_id: int,
) -> None:
    uri = incoming.sources[table].uri
    if parse_mark(file.metadata.metadata, uri)["made_of"] != incoming.manifest.made_of:
        raise FormatError("is of another export than its manifest; export it again", file=uri)
    check_rows(file, incoming.manifest.files[table].rows, uri)
    columns = columns_of(file, shape, incoming.manifest.schema, uri)
    if table != "tensors":
        columns = [c for c in columns if c not in ("subject", "name", "coding")]
    statement = _NUMBERED if table == "tensors" else _BELONGING.format(table=table)
    taken = 0
    for batch in in_order(sound(file, columns, shape, uri), uri, once=table == "iid"):
        once = pa.RecordBatchReader.from_batches(batch.schema, [batch])  # a table would live until the commit
        connection.register("new_rows", once)
        (count,) = connection.execute(statement, [subject_id]).fetchall()[0]
        connection.unregister("new_rows")
        taken += batch.num_rows
        if count != batch.num_rows:
            raise FormatError("has rows of tensors that are not in `tensors`, or are there twice", file=uri)
    if taken != incoming.manifest.files[table].rows:
        raise FormatError("has other rows than its footer says", file=uri)
