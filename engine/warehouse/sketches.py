"""Sketches back from the warehouse: the counts of tensors that were scanned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.nouns.dtypes import CODINGS
from engine.sketch import Sketch
from engine.warehouse.rows import Connection, all_rows

_BINS = """
SELECT tensor_id, code, n, coalesce(low_sum, 0) AS low_sum, coalesce(low_square_sum, 0) AS low_square_sum
FROM bins
WHERE tensor_id BETWEEN ? AND ? AND tensor_id IN (SELECT unnest(?::INTEGER[]))
ORDER BY tensor_id, code
"""
_TENSORS = """
SELECT tensor_id, coding, zeros, min, max FROM tensors
WHERE coding IS NOT NULL AND reason IS NULL AND tensor_id IN (SELECT unnest(?::INTEGER[]))
"""


def read_sketches(connection: Connection, tensor_ids: Sequence[int]) -> dict[int, Sketch]:
    """Read the sketches of some tensors at once.

    Args:
        connection: open for reading.
        tensor_ids: some tens of them, for each takes up to a few hundred kB.

    Returns:
        by tensor; those that were not counted are left out.
    """
    if not tensor_ids:
        return {}
    ids = list(tensor_ids)
    columns = connection.execute(_BINS, [min(ids), max(ids), ids]).fetchnumpy()
    of, code, n, low, square = (np.asarray(columns[name]) for name in columns)
    found = {}
    for tensor_id, coding, zeros, least, most in all_rows(connection, _TENSORS, [ids]):
        here = slice(*np.searchsorted(of, [tensor_id, tensor_id + 1]))
        complete = CODINGS[coding].complete
        found[tensor_id] = Sketch(
            coding,
            code[here].astype(np.uint16),
            n[here].astype(np.uint64),
            None if complete else low[here].astype(np.uint64),
            None if complete else square[here].astype(np.uint64),
            int(zeros),
            np.inf if least is None else float(least),
            -np.inf if most is None else float(most),
        )
    return found
