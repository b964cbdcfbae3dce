"""Rows of files of examples, whatever the format; what cannot be read is a fault, not an exception."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUFFIXES = (".tsv", ".txt", ".csv", ".jsonl", ".json", ".parquet")
_CUT = (".tsv", ".txt", ".csv")
_TORN = 1e-3  # of the lines, at the most, may lack columns where some are known to

Bare = tuple[int, Mapping[str, int]]
"""Of a file without a header: how many columns it has, and the places of those that matter."""


@dataclass(slots=True)
class Table:
    """Rows of a file.

    Attributes:
        path: the file.
        header: names of the columns, as far as they are the same for all rows.
        rows: (line or number of the row from 1, its values by column).
        torn: lines that were left out because they lack columns.
        faults: why it could not be read, or not to its end.
    """

    path: Path
    header: tuple[str, ...] = ()
    rows: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Add a fault, with the file's name."""
        self.faults.append(f"{self.path}: {text}")


def read_table(
    path: Path, bare: Bare | None = None, known: tuple[str, ...] = (), *, torn: bool = False
) -> Table:
    """Read a file: TSV (not quoted), CSV, JSON (a list), JSON lines or Parquet, by its suffix.

    Args:
        path: the file.
        bare: what a TSV without a header looks like, if one is taken.
        known: words of which one is in the header, if there is one.
        torn: whether lines that lack columns are left out, as long as there are less than one in a thousand.
    """
    table = Table(path)
    if path.suffix not in SUFFIXES:
        table.fault(f"is no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
        return table
    try:
        if path.suffix in _CUT:
            _read_lines(table, path, bare, known)
            if torn and table.torn and len(table.torn) <= _TORN * len(table.rows):
                table.faults.clear()
        elif path.suffix == ".parquet":
            _read_parquet(table, path)
        else:
            _read_json(table, path)
    except OSError as error:
        table.fault(f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        table.fault(f"is not UTF-8 at byte {error.start:,}")
    except (ValueError, RecursionError, csv.Error) as error:
        table.fault(f"cannot be read: {' '.join(str(error).split())[:200]}")
    return table


def _read_lines(table: Table, path: Path, bare: Bare | None, known: tuple[str, ...]) -> None:
    # a field of a TSV may hold a carriage return, and what ends a line of a CSV is for its reader to say
    with path.open(newline="" if path.suffix == ".csv" else "\n", encoding="utf-8-sig") as file:
        lines = _split(file, path.suffix)
        first = next(lines, None)
        if first is None:
            table.fault("is empty")
            return
        places = {name: i for i, name in enumerate(first[1])}
        if not set(places) & set(known) and bare is not None and len(first[1]) >= bare[0]:
            places = dict(bare[1])
            _add_line(table, places, *first)
        table.header = tuple(places)
        for number, cells in lines:
            _add_line(table, places, number, cells)


def _split(file: Any, suffix: str) -> Iterator[tuple[int, list[str]]]:
    if suffix == ".csv":
        reader = csv.reader(file, strict=True)
        yield from ((reader.line_num, row) for row in reader if row)
        return
    for number, line in enumerate(file, start=1):
        if text := line.rstrip("\r\n"):
            yield number, text.split("\t")


def _add_line(table: Table, places: Mapping[str, int], number: int, cells: list[str]) -> None:
    if len(cells) <= max(places.values()):
        table.fault(f"line {number:,} has {len(cells)} columns, expected {max(places.values()) + 1}")
        table.torn.append(number)
        return
    table.rows.append((number, {name: cells[i] for name, i in places.items()}))


def _read_json(table: Table, path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        found = json.loads(text)
        if not isinstance(found, list):
            table.fault(f"is a JSON {type(found).__name__}, expected a list of objects")
            return
        records = list(enumerate(found, start=1))
    else:
        records = []
        for number, line in enumerate(text.split("\n"), start=1):  # texts may hold other ends of lines
            if line.strip():
                try:
                    records.append((number, json.loads(line)))
                except ValueError as error:
                    table.fault(f"line {number:,} is not JSON: {error}")
    for number, record in records:
        if isinstance(record, dict):
            table.rows.append((number, record))
        else:
            table.fault(f"row {number:,} is no object")
    table.header = tuple(table.rows[0][1]) if table.rows else ()


def _read_parquet(table: Table, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        found = parquet.read_table(path)
    except pa.ArrowException as error:
        table.fault(f"is no Parquet file: {' '.join(str(error).split())[:200]}")
        return
    table.header = tuple(found.column_names)
    table.rows = list(enumerate(found.to_pylist(), start=1))
