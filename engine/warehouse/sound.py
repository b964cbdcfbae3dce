"""Parquet files that somebody else may have written: nothing in them is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from engine.errors import FormatError
from engine.nouns.records import SourceFile
from engine.version import __version__
from engine.warehouse.exchange import GONE, TABLES, Manifest, file_of, parse_manifest, parse_mark
from engine.warehouse.parquet import batches, open_parquet
from engine.warehouse.queries import named_queries
from engine.warehouse.rows import Connection, all_rows, one_value


@dataclass(frozen=True, slots=True)
class Shape:
    """What the files of a table must look like.

    Attributes:
        schema: columns with their types.
        required: columns that are never NULL.
        version: of the tables that this program knows.
    """

    schema: pa.Schema
    required: frozenset[str]
    version: int


def shape_of(connection: Connection, query: str, table: str, required: frozenset[str]) -> Shape:
    """What the answer to a query of `sql/verbs` must look like when it comes back.

    Args:
        connection: open for reading.
        query: writes the files.
        table: whose columns these are; those that are never NULL there must not be here.
        required: others that must not be.
    """
    found = named_queries("verbs")[query]
    nothing = {**found.defaults, **{name: -1 for name in found.defaults if name.endswith("_id")}}
    schema = connection.sql(found.sql, params=nothing or None).to_arrow_table().schema
    rows = all_rows(
        connection,
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND NOT is_nullable",
        [table],
    )
    version = one_value(connection, "SELECT max(version) FROM schema_migrations")
    return Shape(schema, frozenset(row[0] for row in rows) | required, version)


def read_head(
    source: SourceFile, shape: Shape, tables: Sequence[str] = TABLES
) -> tuple[dict[str, Any], Manifest]:
    """Read the one row of a subject or a run, and its manifest.

    Args:
        source: the file that was written last.
        shape: what it must look like.
        tables: the others.

    Raises:
        FormatError: it is damaged, foreign or newer.
    """
    with open_parquet(source) as file:
        mark = parse_mark(file.metadata.metadata, source.uri)
        manifest = parse_manifest(mark, source.uri, tables)
        if manifest.schema > shape.version:
            raise FormatError(
                f"has schema {manifest.schema}, this gaussmeter ({__version__}) knows up to {shape.version}: "
                "use a newer one",
                file=source.uri,
            )
        check_rows(file, 1, source.uri)
        columns = columns_of(file, shape, manifest.schema, source.uri)
        (row,) = [row for batch in sound(file, columns, shape, source.uri) for row in batch.to_pylist()]
    return row, manifest


def sources_of(key: str, files: Mapping[str, SourceFile], manifest: Manifest) -> dict[str, SourceFile]:
    """The files that a manifest names, by table.

    Raises:
        FormatError: one is missing, or of another size.
    """
    found = {}
    for table in manifest.files:
        path, size = file_of(table, key), manifest.files[table].nbytes
        if path not in files:
            raise FormatError(f"has no {path}; export it again", file=key)
        if files[path].size != size:
            raise FormatError(
                f"has {files[path].size:,} bytes, its manifest says {size:,}; export it again",
                file=files[path].uri,
            )
        found[table] = files[path]
    return found


def check_rows(file: parquet.ParquetFile, rows: int, uri: str) -> None:
    """Refuse a file of other rows; errors as for `read_head`."""
    if file.metadata.num_rows != rows:
        raise FormatError(f"has {file.metadata.num_rows:,} rows, {rows:,} were expected", file=uri)


def columns_of(file: parquet.ParquetFile, shape: Shape, schema: int, uri: str) -> list[str]:
    """The columns of a file that are taken in; an older export may lack some, and have some that are gone."""
    found = file.schema_arrow
    gone = GONE - set(shape.schema.names) if schema < shape.version else frozenset()
    for field in found:
        if field.name in gone:
            continue
        index = shape.schema.get_field_index(field.name)
        if index < 0 or found.names.count(field.name) > 1:
            raise FormatError(f"has a column {field.name!r} that does not belong there", file=uri)
        if field.type != shape.schema.field(index).type:
            wanted = shape.schema.field(index).type
            raise FormatError(f"has a column {field.name!r} of {field.type}, not {wanted}", file=uri)
    must = shape.schema.names if schema == shape.version else shape.required & set(shape.schema.names)
    missing = sorted(set(must) - set(found.names))
    if missing:
        raise FormatError(f"has no column {missing[0]!r}", file=uri)
    return [name for name in found.names if name not in gone]


def sound(
    file: parquet.ParquetFile, columns: Sequence[str], shape: Shape, uri: str
) -> Iterator[pa.RecordBatch]:
    """The rows of a file, in which nothing is missing that must be there."""
    for batch in batches(file, columns):
        for name in shape.required.intersection(columns):
            if batch.column(name).null_count:
                raise FormatError(f"has rows without {name!r}", file=uri)
        yield batch


def in_order(rows: Iterator[pa.RecordBatch], uri: str, *, once: bool) -> Iterator[pa.RecordBatch]:
    """Refuse what is not sorted by tensor, and by code: nothing can then be there twice."""
    last = -1
    for batch in rows:
        key = batch.column("ordinal").to_numpy().astype(np.int64)
        has_code = "code" in batch.schema.names
        if has_code:
            key = (key << 16) | batch.column("code").to_numpy()
        steps = np.diff(key, prepend=last)
        if len(key) and (key[0] < 0 or steps.min() < (1 if has_code or once else 0)):
            raise FormatError("is not in the order of its tensors and codes", file=uri)
        last = int(key[-1]) if len(key) else last
        yield batch
