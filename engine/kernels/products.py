"""Low-rank products in float32, formed block by block, and what DoRA makes of them.

An element of a product is a chain of fused multiply-adds over the rank, k = 0, 1, 2, ... from +0, each
rounded once to float32; then it is multiplied by the scale. That fixes its bits, whatever the block, the task
and the processor. Four rows and a strip of columns are worked on at once, so that the loop over columns, in
which no two elements meet, is the one that is vectorised.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

STRIP = 256
"""Columns side by side; a strip of a factor of rank 16 takes 16 KiB and stays in the first-level cache."""
TILE = 4
"""Rows that share what is loaded of the strip."""

LANES = 64
"""Partial sums of the squares of a row, so that none waits for the addition before."""

_QUIET_NAN = np.uint32(0x7FC00000)


def _fused(_: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a * b + c in float32, rounded once: IEEE 754-2008, section 5.4.1."""
    signature = types.float32(types.float32, types.float32, types.float32)
    return signature, lambda context, builder, _, values: builder.fma(*values)


_fma: Any = intrinsic(_fused)


@njit(nogil=True, cache=True)
def _add_four(left: Any, at: Any, rank: Any, strip: Any, sums: Any) -> None:
    """Go on with the chains of a tile by four steps.

    Args:
        left: (rows * rank,) float32.
        at: where the first of the four factors of the tile's first row lies.
        rank: from a row to the next.
        strip: (4 * STRIP,) float32, the four rows of the right factor.
        sums: (TILE * STRIP,) float32, added to.
    """
    b00, b01, b02, b03 = left[at], left[at + 1], left[at + 2], left[at + 3]
    at += rank
    b10, b11, b12, b13 = left[at], left[at + 1], left[at + 2], left[at + 3]
    at += rank
    b20, b21, b22, b23 = left[at], left[at + 1], left[at + 2], left[at + 3]
    at += rank
    b30, b31, b32, b33 = left[at], left[at + 1], left[at + 2], left[at + 3]
    for j in range(STRIP):
        a0, a1, a2, a3 = strip[j], strip[j + STRIP], strip[j + 2 * STRIP], strip[j + 3 * STRIP]
        sums[j] = _fma(b03, a3, _fma(b02, a2, _fma(b01, a1, _fma(b00, a0, sums[j]))))
        j1, j2, j3 = j + STRIP, j + 2 * STRIP, j + 3 * STRIP
        sums[j1] = _fma(b13, a3, _fma(b12, a2, _fma(b11, a1, _fma(b10, a0, sums[j1]))))
        sums[j2] = _fma(b23, a3, _fma(b22, a2, _fma(b21, a1, _fma(b20, a0, sums[j2]))))
        sums[j3] = _fma(b33, a3, _fma(b32, a2, _fma(b31, a1, _fma(b30, a0, sums[j3]))))


@njit(nogil=True, cache=True)
def _add_one(left: Any, at: Any, rank: Any, strip: Any, sums: Any) -> None:
    """Go on by one step; see `_add_four`, but `strip` is (STRIP,)."""
    b0, b1, b2, b3 = left[at], left[at + rank], left[at + 2 * rank], left[at + 3 * rank]
    for j in range(STRIP):
        a = strip[j]
        sums[j] = _fma(b0, a, sums[j])
        sums[j + STRIP] = _fma(b1, a, sums[j + STRIP])
        sums[j + 2 * STRIP] = _fma(b2, a, sums[j + 2 * STRIP])
        sums[j + 3 * STRIP] = _fma(b3, a, sums[j + 3 * STRIP])


@njit(nogil=True, cache=True)
def _put(sums: Any, scale: Any, add: Any, out: Any) -> None:
    """Scale the elements of a row of a tile, and put them away or add them.

    Args:
        sums: (w,) float32.
        scale: float32.
        add: whether to add.
        out: (w,) uint32, patterns of float32.
    """
    for j in range(out.size):
        x = np.float32(sums[j] * scale)
        if add:
            x = np.float32(np.uint32(out[j]).view(np.float32) + x)
        out[j] = np.float32(x).view(np.uint32) if x == x else _QUIET_NAN  # noqa: PLR0124 - NaN differs from itself


@njit(nogil=True, cache=True)
def form(
    left: Any, right: Any, rank: Any, rows: Any, first: Any, width: Any, scale: Any, add: Any, out: Any
) -> None:
    """Form a block of scale * (left @ right).

    Args:
        left: (r * rank,) float32, the block's rows of the left factor in C order; r is `rows` or more, and a
            multiple of TILE.
        right: (s * rank * STRIP,) float32, the right factor as `strips_of` lays it out.
        rank: columns of the left factor.
        rows: how many rows to form.
        first: the first strip.
        width: how many columns to form, from that strip on.
        scale: float32.
        add: whether to add to what is in `out` instead of overwriting it.
        out: (rows * width,) uint32, patterns of float32 in C order; NaN is 0x7FC00000.
    """
    sums = np.empty(TILE * STRIP, np.float32)
    for start in range(0, width, STRIP):
        column = min(STRIP, width - start)
        strip = (first + start // STRIP) * rank * STRIP
        for row in range(0, rows, TILE):
            sums[:] = 0
            fours = rank // 4 * 4
            for k in range(0, fours, 4):
                at = strip + k * STRIP
                _add_four(left, row * rank + k, rank, right[at : at + 4 * STRIP], sums)
            for k in range(fours, rank):
                at = strip + k * STRIP
                _add_one(left, row * rank + k, rank, right[at : at + STRIP], sums)
            for i in range(min(TILE, rows - row)):
                to = (row + i) * width + start
                _put(sums[i * STRIP : i * STRIP + column], scale, add, out[to : to + column])


@njit(nogil=True, cache=True)
def strips_of(right: Any) -> Any:
    """Lay a right factor out by strips of columns, the last one filled up with zeros.

    Args:
        right: (rank, columns) float32.

    Returns:
        (s * rank * STRIP,) float32: strip after strip, each (rank, STRIP) in C order.
    """
    rank, columns = right.shape
    strips = (columns + STRIP - 1) // STRIP
    out = np.zeros(strips * rank * STRIP, np.float32)
    for s in range(strips):
        start = s * STRIP
        stop = min(start + STRIP, columns)
        for k in range(rank):
            to = (s * rank + k) * STRIP
            for j in range(start, stop):
                out[to + j - start] = right[k, j]
    return out


@njit(nogil=True, cache=True)
def _square(base: Any, delta: Any) -> Any:
    """Square base + delta, a float32, in float64, where that is exact."""
    v = np.float64(np.float32(base + delta))
    return v * v


@njit(nogil=True, cache=True)
def norm_factors(base: Any, delta: Any, magnitude: Any, out: Any) -> None:
    """What DoRA multiplies each row with: magnitude / ||base + delta||, the norm over the row.

    The sum base + delta is rounded to float32 as it is when an adapter is merged; its squares are exact in
    float64 and are added up there, element j to partial sum j mod LANES, and those in order at the end.

    Args:
        base: (rows, columns) float32.
        delta: (rows, columns) float32.
        magnitude: (rows,) float32.
        out: (rows,) float32.
    """
    rows, columns = base.shape
    partial = np.empty(LANES)
    for i in range(rows):
        partial[:] = 0.0
        for start in range(0, columns, LANES):
            b, d = base[i, start : start + LANES], delta[i, start : start + LANES]
            for lane in range(b.size):
                partial[lane] += _square(b[lane], d[lane])
        total = 0.0
        for lane in range(LANES):
            total += partial[lane]
        out[i] = _ratio(np.float64(magnitude[i]), math.sqrt(total))


@njit(nogil=True, cache=True)
def add_column_squares(base: Any, delta: Any, sums: Any) -> None:
    """Add the squares of base + delta to the sum of each column, row after row; see `norm_factors`.

    Args:
        base: (rows, columns) float32.
        delta: (rows, columns) float32.
        sums: (columns,) float64, added to.
    """
    rows, columns = base.shape
    for i in range(rows):
        b, d = base[i], delta[i]
        for j in range(columns):
            sums[j] += _square(b[j], d[j])


@njit(nogil=True, cache=True)
def column_factors(magnitude: Any, sums: Any, out: Any) -> None:
    """What DoRA multiplies each column with, when the base stores its outputs as columns.

    Args:
        magnitude: (columns,) float32.
        sums: (columns,) float64, of squares.
        out: (columns,) float32.
    """
    for j in range(out.size):
        out[j] = _ratio(np.float64(magnitude[j]), math.sqrt(sums[j]))


@njit(nogil=True, cache=True)
def _ratio(magnitude: Any, norm: Any) -> Any:
    """Divide magnitude by norm as IEEE has it, where Python would raise."""
    if norm == 0.0:
        return np.float32(np.nan if magnitude == 0.0 else magnitude * np.inf)
    return np.float32(magnitude / norm)


@njit(nogil=True, cache=True)
def rescale(base: Any, delta: Any, factors: Any, by_column: Any) -> None:
    """Make of delta DoRA's difference: factor * (base + delta) - base, each step rounded to float32.

    Args:
        base: (rows, columns) float32.
        delta: (rows, columns) float32 by its patterns, uint32; overwritten by those of the difference, NaN by
            0x7FC00000.
        factors: (rows,) or (columns,) float32.
        by_column: whether they are of the columns.
    """
    rows, columns = base.shape
    for i in range(rows):
        b, d = base[i], delta[i]
        if by_column:
            for j in range(columns):
                x = np.float32(factors[j] * np.float32(b[j] + np.uint32(d[j]).view(np.float32)))
                x = np.float32(x - b[j])
                d[j] = np.float32(x).view(np.uint32) if x == x else _QUIET_NAN  # noqa: PLR0124
        else:
            factor = factors[i]
            for j in range(columns):
                x = np.float32(factor * np.float32(b[j] + np.uint32(d[j]).view(np.float32)))
                x = np.float32(x - b[j])
                d[j] = np.float32(x).view(np.uint32) if x == x else _QUIET_NAN  # noqa: PLR0124
