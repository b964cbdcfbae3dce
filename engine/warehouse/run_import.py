"""Adaptation runs, from Parquet files into the warehouse, a run in a transaction; nothing is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.errors import FormatError
from engine.nouns.records import SourceFile
from engine.warehouse.exchange import RUN_TABLES, RUNS, Manifest, file_of, parse_mark
from engine.warehouse.parquet import open_parquet
from engine.warehouse.rows import Connection, first_row, one_value
from engine.warehouse.run_export import run_identity
from engine.warehouse.sound import Shape, check_rows, columns_of, read_head, shape_of, sound, sources_of

_NEXT = "SELECT coalesce(max(run_id), 0) + 1 FROM runs"
_ENDED = ("complete", "failed")
_REQUIRED = {RUNS: frozenset({"run", "status"}), "metrics": frozenset(), "scalars": frozenset()}


@dataclass(frozen=True, slots=True)
class IncomingRun:
    """A run that is offered.

    Attributes:
        key: the name of its folders.
        row: its row in `runs`.
        manifest: what its export says of itself.
        sources: the file of each table.
    """

    key: str
    row: dict[str, Any]
    manifest: Manifest
    sources: dict[str, SourceFile]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.row["run"])


def run_shapes(connection: Connection) -> dict[str, Shape]:
    """What the files of runs must look like."""
    queries = {RUNS: "export_run", **{table: f"export_{table}" for table in RUN_TABLES}}
    return {table: shape_of(connection, query, table, _REQUIRED[table]) for table, query in queries.items()}


def read_run(key: str, files: Mapping[str, SourceFile], expected: Mapping[str, Shape]) -> IncomingRun:
    """Read what an export says of a run, and whether its files are there.

    Args:
        key: the name of its folders.
        files: what is there, by path.
        expected: from `run_shapes`.

    Raises:
        FormatError: it is incomplete, damaged, foreign or newer.
    """
    path = file_of(RUNS, key)
    if path not in files:
        raise FormatError(f"has no {path}: its export was interrupted; export it again", file=key)
    uri = files[path].uri
    row, manifest = read_head(files[path], expected[RUNS], RUN_TABLES)
    identity = run_identity(row["run"], _spec(row["spec"], uri))
    if key.rpartition("@")[2] != identity:
        raise FormatError(f"is of the run {identity}, but lies in the folder of {key}", file=uri)
    if row["status"] not in _ENDED:
        raise FormatError(f"has a run that is {row['status']!r}, which is no end", file=uri)
    return IncomingRun(key, row, manifest, sources_of(key, files, manifest))


def _spec(text: str | None, file: str) -> str | None:
    try:
        if text is None or isinstance(json.loads(text), dict):
            return text
    except (ValueError, RecursionError) as error:
        raise FormatError("has a spec that is no JSON", file=file) from error
    raise FormatError("has a spec that this program would not have written", file=file)


def take_in_run(
    connection: Connection, incoming: IncomingRun, expected: Mapping[str, Shape], subject_id: int | None
) -> tuple[int, str]:
    """Write the rows of a run, in place of one that did not come to its end here.

    Args:
        connection: in a transaction, which the caller undoes if this fails.
        incoming: the run.
        expected: from `run_shapes`.
        subject_id: of its dW here, None if that is not here.

    Returns:
        its number, and whether it was `imported` or is `unchanged`.

    Raises:
        FormatError: another run has its name, or a file is damaged or foreign.
    """
    row = {k: v for k, v in incoming.row.items() if k not in ("run", "subject_key")}
    row |= {"name": incoming.name, "subject_id": subject_id}
    known = first_row(
        connection,
        "SELECT run_id, spec::VARCHAR, status, finished_at FROM runs WHERE name = ? ORDER BY run_id DESC",
        [incoming.name],
    )
    if known is not None and known[1] != row["spec"]:
        message = f"a run of another configuration has the name {incoming.name!r} here"
        raise FormatError(message, file=incoming.sources["metrics"].uri)
    if known is not None and _is_as_good(known[2], known[3], row):
        if subject_id is not None:  # which may have come later
            link = "UPDATE runs SET subject_id = ? WHERE run_id = ? AND subject_id IS NULL"
            connection.execute(link, [subject_id, known[0]])
        return int(known[0]), "unchanged"
    number = known[0] if known is not None else one_value(connection, _NEXT)
    for table in (RUNS, *RUN_TABLES):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [number])
    names = ", ".join(f"? AS {name}" for name in row)
    connection.execute(f"INSERT INTO runs BY NAME SELECT ? AS run_id, {names}", [number, *row.values()])
    for table in RUN_TABLES:
        _take_table(connection, table, incoming, expected[table], int(number))
    return int(number), "imported"


def _is_as_good(status: str, finished_at: Any, row: Mapping[str, Any]) -> bool:
    """Whether what is here of a run is to stay: a complete one goes before others, and then the later."""
    if status not in _ENDED or (status == "failed" and row["status"] == "complete"):
        return False
    if status == "complete":
        return True
    return row["finished_at"] is None or (finished_at is not None and finished_at >= row["finished_at"])


def _take_table(connection: Connection, table: str, incoming: IncomingRun, shape: Shape, run_id: int) -> None:
    source = incoming.sources[table]
    with open_parquet(source) as file:
        if parse_mark(file.metadata.metadata, source.uri)["made_of"] != incoming.manifest.made_of:
            raise FormatError("is of another export than its manifest; export it again", file=source.uri)
        check_rows(file, incoming.manifest.files[table].rows, source.uri)
        columns = [c for c in columns_of(file, shape, incoming.manifest.schema, source.uri) if c != "run"]
        for batch in sound(file, columns, shape, source.uri):
            once = pa.RecordBatchReader.from_batches(batch.schema, [batch])
            connection.register("new_rows", once)
            rows = f"INSERT INTO {table} BY NAME SELECT ?::INTEGER AS run_id, * FROM new_rows"
            connection.execute(rows, [run_id])
            connection.unregister("new_rows")
