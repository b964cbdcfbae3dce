"""From the warehouse to Parquet files, a subject at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
from pyarrow import parquet

from engine.errors import TaskError
from engine.warehouse.exchange import (
    FORMAT,
    MARK,
    SUBJECTS,
    TABLES,
    Manifest,
    Size,
    digest,
    identity_of,
    mark_of,
)
from engine.warehouse.queries import named_queries
from engine.warehouse.rows import Connection, all_rows, one_line, one_value

_GROUP_ROWS = 1 << 19
_CARDS = """
SELECT
    subject_id, name, uri, fingerprint, kind, spec::VARCHAR,
    revision, engine_version, started_at, finished_at, iid, parent_ids
FROM subjects
WHERE status = 'complete' AND (
    ?::INTEGER IS NULL OR subject_id = ?
    OR list_contains((SELECT parent_ids FROM subjects WHERE subject_id = ?), subject_id)
)
ORDER BY subject_id
"""
_RISING = {"code": "DELTA_BINARY_PACKED", "ordinal": "DELTA_BINARY_PACKED"}


@dataclass(frozen=True, slots=True)
class Card:
    """What has to be known of a subject before it is exported.

    Attributes:
        subject_id: its number here.
        name: its name.
        uri: its place.
        identity: what it is the same by everywhere.
        schema: version of the tables.
        made_of: digest of everything that decides what its files hold.
        parents: identities of its parents.
    """

    tables: ClassVar[tuple[str, ...]] = TABLES
    head: ClassVar[str] = SUBJECTS

    subject_id: int
    name: str
    uri: str
    identity: str
    schema: int
    made_of: str
    parents: tuple[str, ...]


def read_cards(connection: Connection, only: int | None = None) -> dict[int, Card]:
    """The cards of all complete subjects, or of one and its parents, by number."""
    schema = one_value(connection, "SELECT max(version) FROM schema_migrations")
    views = one_value(connection, "SELECT any_value(digest) FROM schema_views")
    rows = all_rows(connection, _CARDS, [only, only, only])
    identities = {row[0]: identity_of(*row[2:6]) for row in rows}
    cards = {}
    for subject_id, name, uri, *rest in rows:
        parents = tuple(identities[p] for p in rest[-1] if p in identities)
        made_of = digest(FORMAT, schema, views, name, uri, rest[:-1], parents)
        cards[subject_id] = Card(subject_id, name, uri, identities[subject_id], schema, made_of, parents)
    return cards


def write_subject(connection: Connection, card: Card, folder: Path) -> Manifest:
    """Write the files of a subject, `TABLE.parquet` each; that of `subjects` holds the manifest.

    Args:
        connection: open for reading.
        card: the subject's.
        folder: where to.

    Raises:
        TaskError: a file cannot be written.
    """
    wanted = {"subject_id": card.subject_id}
    sizes = {}
    for table in TABLES:
        runs = _runs(connection, wanted) if table == "bins" else [wanted]
        sizes[table] = write_answer(
            connection, table, runs, folder / f"{table}.parquet", mark_of(card.made_of)
        )
    manifest = Manifest(card.schema, card.made_of, card.parents, sizes)
    write_answer(connection, "subject", [wanted], folder / f"{SUBJECTS}.parquet", manifest.to_bytes())
    return manifest


def codes_mark(connection: Connection) -> str:
    """Digest of the table of codes."""
    return digest(FORMAT, all_rows(connection, "SELECT DISTINCT coding FROM codes ORDER BY ALL"))


def write_codes(connection: Connection, path: Path) -> None:
    """Write what the codes stand for; errors as for `write_subject`."""
    write_answer(connection, "codes", [{}], path, mark_of(codes_mark(connection)))


def _runs(connection: Connection, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Stretches of tensors that have as many bins as fit into memory together."""
    query = named_queries("verbs")["export_sizes"]
    total, first, last = 0, 0, -1
    for ordinal, size in connection.execute(query.sql, dict(wanted)).fetchall():
        if total and total + size > _GROUP_ROWS:
            yield {**wanted, "first": first, "last": last}
            total, first = 0, ordinal
        total, last = total + size, ordinal
    yield {**wanted, "first": first, "last": last}


def write_answer(
    connection: Connection, table: str, runs: Iterable[Mapping[str, Any]], path: Path, mark: bytes
) -> Size:
    """Write the answers of a query, one after the other.

    Args:
        connection: open for reading.
        table: the query is `sql/verbs/export_TABLE.sql`.
        runs: parameters of the query, a set for each answer.
        path: the file.
        mark: what it is made of.

    Raises:
        TaskError: it cannot be written.
    """
    query, rows, writer = named_queries("verbs")[f"export_{table}"], 0, None
    try:
        for parameters in runs:
            relation = connection.sql(query.sql, params=dict(parameters) or None)
            answer = relation.to_arrow_table().replace_schema_metadata({MARK: mark})
            writer = writer or _writer(path, answer.schema)
            writer.write_table(answer, _GROUP_ROWS)
            rows += answer.num_rows
    except OSError as error:
        raise TaskError(f"could not be written: {error.strerror or error}", file=str(path)) from error
    except duckdb.Error as error:
        raise TaskError(f"could not be exported: {one_line(error)}", file=str(path)) from error
    finally:
        if writer is not None:
            _close(writer, path)
    return Size(rows, path.stat().st_size)


def _writer(path: Path, schema: pa.Schema) -> parquet.ParquetWriter:
    rising = {name: how for name, how in _RISING.items() if name in schema.names}
    words = [name for name in schema.names if name not in rising]
    return parquet.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=words,
        column_encoding=rising,
        write_page_checksum=True,
    )


def _close(writer: parquet.ParquetWriter, path: Path) -> None:
    try:
        writer.close()
    except OSError as error:
        raise TaskError(f"could not be written: {error.strerror or error}", file=str(path)) from error
