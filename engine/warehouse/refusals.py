"""What was refused, on its way from several warehouses into one file, and into another warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyarrow import parquet

from engine.errors import FormatError, TaskError
from engine.nouns.records import SourceFile
from engine.warehouse.columns import insert_records
from engine.warehouse.exchange import FORMAT, MARK, digest, mark_of, parse_mark
from engine.warehouse.parquet import open_parquet
from engine.warehouse.queries import named_queries
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.sound import Shape, columns_of, shape_of, sound

Row = dict[str, Any]
_TAKEN_IN = "SELECT uri, max(finished_at) FROM subjects WHERE status = 'complete' GROUP BY uri"


def refusal_shape(connection: Connection) -> Shape:
    """What the file must look like."""
    return shape_of(connection, "export_refusals", "refusals", frozenset())


def own_refusals(connection: Connection) -> list[Row]:
    """What this warehouse could not take in."""
    cursor = connection.execute(named_queries("verbs")["export_refusals"].sql)
    names = [d[0] for d in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def read_refusals(source: SourceFile, shape: Shape) -> list[Row]:
    """Read the file of an export.

    Raises:
        FormatError: it is damaged or foreign.
    """
    with open_parquet(source) as file:
        parse_mark(file.metadata.metadata, source.uri)
        columns = columns_of(file, shape, shape.version, source.uri)
        rows = [row for batch in sound(file, columns, shape, source.uri) for row in batch.to_pylist()]
    for row in rows:
        try:
            json.loads(row["spec"])
        except (ValueError, RecursionError) as error:
            raise FormatError("has a spec that is no JSON", file=source.uri) from error
    return rows


def joined(connection: Connection, *several: Iterable[Row]) -> list[Row]:
    """All refusals once, the last word on each, but for places that were taken in here since.

    Args:
        connection: open for reading.
        several: rows of several warehouses.
    """
    since: dict[str, Any] = dict(all_rows(connection, _TAKEN_IN))
    found: dict[tuple[str, str], Row] = {}
    for row in (row for rows in several for row in rows):
        key = (row["uri"], row["spec"])
        other = found.get(key, row)
        last = max(row, other, key=lambda r: r["last_at"])
        found[key] = last | {"first_at": min(row["first_at"], other["first_at"])}
    kept = (r for r in found.values() if r["uri"] not in since or since[r["uri"]] < r["last_at"])
    return sorted(kept, key=lambda r: (r["uri"], r["spec"]))


def write_refusals(connection: Connection, rows: list[Row], shape: Shape, path: Path) -> None:
    """Write the file of an export.

    Raises:
        TaskError: it cannot be written.
    """
    table = shape.schema.empty_table()
    if rows:
        lists = [[row[name] for row in rows] for name in shape.schema.names]
        columns = ", ".join(f"unnest(?) AS {name}" for name in shape.schema.names)
        table = connection.sql(f"SELECT {columns}", params=lists).to_arrow_table().cast(shape.schema)
    try:
        marked = table.replace_schema_metadata({MARK: mark_of(digest(FORMAT, rows))})
        parquet.write_table(marked, path, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise TaskError(f"could not be written: {error.strerror or error}", file=str(path)) from error


def take_in_refusals(connection: Connection, rows: list[Row]) -> int:
    """Put what others could not take in beside what this warehouse could not.

    Args:
        connection: in a transaction.
        rows: from `read_refusals`.

    Returns:
        how many were not known here, or not as they are now.
    """
    own = own_refusals(connection)
    whole = joined(connection, own, rows)
    known: list[Mapping[str, Any]] = list(own)
    new = [row for row in whole if row not in known]
    for row in new:
        connection.execute(
            "DELETE FROM refusals WHERE uri = ? AND spec::VARCHAR = ?", [row["uri"], row["spec"]]
        )
    if new:
        insert_records(connection, "refusals", new)
    return len(new)
