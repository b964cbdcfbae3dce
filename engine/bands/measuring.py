"""One band, measured always in the same order: in float32 where that is enough, else in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.bands.known import F64, Values
from engine.kernels import reals, rows
from engine.nouns.matrices import Matrix

_SMALL, _FAR = 2.0**-80, 64.0


def measure_band(matrix: Matrix, values: Values) -> tuple[F64, F64, float, float] | None:
    """Measure a band: in float32 where that is enough, else in float64; None if it holds what is no number.

    Returns:
        sums of rows, of columns, and of the products of neighbours in a row and in a column.
    """
    columns = matrix.columns
    if _is_nothing(values):
        return np.zeros((2, values.size // columns)), np.zeros((2, columns)), 0.0, 0.0
    of_rows, of_columns = np.empty((2, values.size // columns)), np.empty((2, columns))
    of_pairs = np.empty(2)
    rows.measure_rows(values, columns, np.empty(rows.WORK, np.float32), of_rows, of_columns, of_pairs)
    if not is_precise(of_rows, values):
        wide = np.empty(rows.WORK, np.float64)
        rows.measure_rows(_as_f32(values), columns, wide, of_rows, of_columns, of_pairs)
        if not np.isfinite(of_rows[1].sum()):
            return None
    square_again(of_rows, values)
    return of_rows, of_columns, float(of_pairs[0]), float(of_pairs[1])


def is_precise(of_rows: F64, values: Values) -> bool:
    """Whether float32 was enough: nothing overflowed or underflowed, and the mean is not far above sigma."""
    total, squares = (of_rows.sum(axis=1) / values.size).tolist()
    return bool(_SMALL < squares < 1 / _SMALL and total * total < _FAR * (squares - total * total))


def square_again(of_rows: F64, values: Values) -> None:
    """Make sure that only rows of zeros have no squares: those of tiny elements are too small for float32."""
    empty = np.flatnonzero(of_rows[1] == 0)
    if empty.size:
        wide = _as_f32(values.reshape(of_rows.shape[1], -1)[empty]).astype(np.float64)
        of_rows[1, empty] = (wide * wide).sum(axis=1)


def dot(a: Values, b: Values) -> float:
    """Sum of the products of two rows, in float64."""
    return float(reals.dot(_as_f32(a), _as_f32(b)))


def _is_nothing(values: Values) -> bool:
    """Whether all are +0; words are looked at up to the first that is not 0."""
    words = values[: values.size // 4 * 4].view(np.uint64)
    return not words.any() and not values[words.size * 8 // values.itemsize :].view(np.uint8).any()


def _as_f32(values: Values) -> NDArray[np.float32]:
    if values.dtype == np.uint16:
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if values.dtype == np.int16:
        with np.errstate(invalid="ignore"):
            return values.view(np.float16).astype(np.float32)
    return values
