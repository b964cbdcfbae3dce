"""The answer to a query, and the forms in which it leaves."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """Columns and rows, as Python values.

    Attributes:
        columns: their names, in order.
        rows: one tuple a row.
    """

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """One dictionary a row; of columns with one name the later get a number."""
        names = _distinct(self.columns)
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def to_json(self) -> str:
        """A JSON list of objects; what JSON cannot say (NaN, infinities) becomes null."""
        records = [{k: _jsonable(v) for k, v in r.items()} for r in self.records()]
        return json.dumps(records, ensure_ascii=False, indent=1)

    def to_csv(self) -> str:
        """CSV (RFC 4180, but for its line ends) with a header line; NULL is empty."""
        lines = [self.columns, *self.rows]
        return "".join(",".join(map(_csv_field, line)) + "\n" for line in lines)

    def to_parquet(self) -> bytes:
        """A Parquet file; a column of what Arrow has no one type for becomes text."""
        import pyarrow as pa
        from pyarrow import parquet

        names = _distinct(self.columns)
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in names)

        def stored(column: Iterable[Any]) -> Any:
            values = _storable(column)
            try:
                return pa.array(values)
            except (pa.ArrowException, OverflowError):  # wide numbers in lists, keys that are numbers, unions
                return pa.array([None if v is None else str(v) for v in values], pa.string())

        table = pa.table(dict(zip(names, map(stored, columns), strict=True)))
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        return buffer.getvalue()


def _csv_field(value: Any) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


def _storable(column: Iterable[Any]) -> list[Any]:
    """Whole numbers beyond 64 bits, which DuckDB's sums are made of, become decimals."""
    values = list(column)
    if any(isinstance(v, int) and not -(1 << 63) <= v < 1 << 63 for v in values):
        return [Decimal(v) if isinstance(v, int) else v for v in values]
    return values


def _distinct(names: Sequence[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in result:
            number += 1
            candidate = f"{name}_{number}"
        result.append(candidate)
    return result


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)
