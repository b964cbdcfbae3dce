"""Columns of numbers and words on their way into a table.

Neither way loads pandas, which `pyarrow.array` does wherever it is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.warehouse.rows import Connection

_ARROW_TYPES = {"int32": pa.int32(), "uint16": pa.uint16(), "uint64": pa.uint64(), "float64": pa.float64()}


def arrow(array: NDArray[Any]) -> pa.Array:
    """View a number array as Arrow."""
    array = np.ascontiguousarray(array)
    return pa.Array.from_buffers(_ARROW_TYPES[array.dtype.name], len(array), [None, pa.py_buffer(array)])


def insert_arrow(connection: Connection, table: str, columns: Mapping[str, pa.Array], **same: object) -> None:
    """Append millions of rows; `same` are columns of one value."""
    connection.register("new_rows", pa.Table.from_arrays(list(columns.values()), list(columns)))
    constants = "".join(f", ? AS {name}" for name in same)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT *{constants} FROM new_rows", list(same.values()))
    connection.unregister("new_rows")


def insert_records(connection: Connection, table: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Append some hundreds of rows of any values; all records have the same fields."""
    fields = list(records[0])
    lists = [[record[field] for record in records] for field in fields]
    rows = ", ".join(f"unnest(?) AS {field}" for field in fields)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT {rows}", lists)
