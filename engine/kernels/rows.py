"""One reading of some whole rows of a matrix for what depends on order (numba, `nogil`).

Every sum is of lanes in an order that stands in the source, and nothing is contracted, so that the bits are
the same on every processor: `fastmath` would let the width of its vectors decide. Strips of columns are
unfolded into one array of work, where all distances are constants, because the compiler then needs no
checks of what overlaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engine.kernels.floats import value

WIDTH = 512
"""Columns of a strip."""
_EIGHTH = WIDTH // 8
_FOUR = 4
_STEP = 64  # a strip is unfolded to a multiple of it; beyond the matrix there are zeros
_TILE = WIDTH + _STEP  # a row of the tile: a strip, and the first column of the next
_SUM, _SQUARE = 5 * _TILE, 5 * _TILE + WIDTH
_ACROSS, _DOWN = 5 * _TILE + 2 * WIDTH, 5 * _TILE + 3 * WIDTH
_FOLD = 5 * _TILE + 4 * WIDTH
WORK = _FOLD + 2 * _EIGHTH
"""Numbers that the work takes."""


@njit(nogil=True, cache=True)
def measure_rows(data: Any, columns: int, work: Any, of_rows: Any, of_columns: Any, of_pairs: Any) -> None:
    """Add up some consecutive rows.

    Args:
        data: (rows * columns,) uint16 (bf16), int16 (f16) or float32, in C order.
        columns: of the matrix.
        work: (WORK,) float32 or float64, which decides how precisely it is done; overwritten.
        of_rows: (2, rows) float64, the sum of each row and of its squares; overwritten.
        of_columns: (2, columns) float64, the same of each column; overwritten.
        of_pairs: (2,) float64, sums of the products of neighbours in a row and in a column; overwritten.
    """
    rows = data.size // columns
    ends = work[_FOLD:]
    of_rows[:] = 0.0
    of_pairs[:] = 0.0
    for left in range(0, columns, WIDTH):
        here = min(WIDTH, columns - left)
        width = (here + _STEP - 1) // _STEP * _STEP
        for i in range(_FOLD):
            work[i] = 0.0
        for row in range(0, rows, _FOUR):
            first = row * columns + left
            stop = (row + 1) * columns
            _unfold(data[first:stop], here, width, work[_TILE : 2 * _TILE])
            _unfold(data[first + columns : stop + columns], here, width, work[2 * _TILE : 3 * _TILE])
            _unfold(data[first + 2 * columns : stop + 2 * columns], here, width, work[3 * _TILE : 4 * _TILE])
            _unfold(data[first + 3 * columns : stop + 3 * columns], here, width, work[4 * _TILE : 5 * _TILE])
            _add_four(work, width)
            for k in range(min(_FOUR, rows - row)):
                _fold(work[(k + 1) * _TILE : (k + 2) * _TILE], ends)
                of_rows[0, row + k] += _total(ends[:_EIGHTH])
                of_rows[1, row + k] += _total(ends[_EIGHTH:])
            for i in range(width):
                work[i] = work[4 * _TILE + i]
        for i in range(here):
            of_columns[0, left + i] = np.float64(work[_SUM + i])
            of_columns[1, left + i] = np.float64(work[_SQUARE + i])
        of_pairs[0] += _strip_total(work[_ACROSS:_DOWN], ends)
        of_pairs[1] += _strip_total(work[_DOWN:_FOLD], ends)


@njit(nogil=True, cache=True)
def _unfold(part: Any, here: int, width: int, row: Any) -> None:
    """Bring part of a row into the tile, with the element behind it if there is one, and then zeros."""
    count = min(here + 1, part.size)
    for i in range(count):
        row[i] = value(part[i])
    for i in range(count, width + 1):
        row[i] = 0.0


@njit(nogil=True, cache=True)
def _add_four(work: Any, width: int) -> None:
    for i in range(width):
        a = work[i]
        x0, x1, x2, x3 = work[_TILE + i], work[2 * _TILE + i], work[3 * _TILE + i], work[4 * _TILE + i]
        n0, n1 = work[_TILE + 1 + i], work[2 * _TILE + 1 + i]
        n2, n3 = work[3 * _TILE + 1 + i], work[4 * _TILE + 1 + i]
        work[_SUM + i] += (x0 + x1) + (x2 + x3)
        work[_SQUARE + i] += (x0 * x0 + x1 * x1) + (x2 * x2 + x3 * x3)
        work[_ACROSS + i] += (x0 * n0 + x1 * n1) + (x2 * n2 + x3 * n3)
        work[_DOWN + i] += (a * x0 + x0 * x1) + (x1 * x2 + x2 * x3)


@njit(nogil=True, cache=True)
def _fold(row: Any, ends: Any) -> None:
    """Sum a row of the tile, and its squares, to an eighth of the width."""
    for i in range(_EIGHTH):
        x0, x1, x2, x3 = row[i], row[i + _EIGHTH], row[i + 2 * _EIGHTH], row[i + 3 * _EIGHTH]
        x4, x5 = row[i + 4 * _EIGHTH], row[i + 5 * _EIGHTH]
        x6, x7 = row[i + 6 * _EIGHTH], row[i + 7 * _EIGHTH]
        ends[i] = ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))
        ends[i + _EIGHTH] = ((x0 * x0 + x1 * x1) + (x2 * x2 + x3 * x3)) + (
            (x4 * x4 + x5 * x5) + (x6 * x6 + x7 * x7)
        )


@njit(nogil=True, cache=True)
def _total(end: Any) -> float:
    """Sum an eighth of a strip; overwrites it."""
    for i in range(8):
        end[i] = ((end[i] + end[i + 8]) + (end[i + 16] + end[i + 24])) + (
            (end[i + 32] + end[i + 40]) + (end[i + 48] + end[i + 56])
        )
    a, b, c, d = np.float64(end[0]), np.float64(end[1]), np.float64(end[2]), np.float64(end[3])
    e, f, g, h = np.float64(end[4]), np.float64(end[5]), np.float64(end[6]), np.float64(end[7])
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@njit(nogil=True, cache=True)
def _strip_total(strip: Any, ends: Any) -> float:
    _fold(strip, ends)
    return _total(ends[:_EIGHTH])
