"""Quantised elements that share factors by blocks."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True)
def dequantise8(
    codes: Any,
    values: Any,
    factors: Any,
    first: int,
    rows: int,
    columns: int,
    block_rows: int,
    block_columns: int,
    out: Any,
) -> None:
    """Multiply the value of each code by the factor of its block, in float32.

    Args:
        codes: (n,) uint8, elements `first` to `first + n` of matrices in C order.
        values: (256,) float32, the value of each code.
        factors: (m,) float32, C order: one for each block of each matrix.
        first: index of the first element.
        rows: of a matrix.
        columns: of a matrix.
        block_rows: rows that share a factor.
        block_columns: columns that share a factor.
        out: (n,) float32, the products.
    """
    across = (columns + block_columns - 1) // block_columns
    down = (rows + block_rows - 1) // block_rows
    done = 0
    while done < codes.size:
        row, column = divmod(first + done, columns)
        matrix, row_in_matrix = divmod(row, rows)
        line = (matrix * down + row_in_matrix // block_rows) * across
        block = column // block_columns
        stop = min(done + min((block + 1) * block_columns, columns) - column, codes.size)
        factor = factors[line + block]
        for i in range(done, stop):
            out[i] = values[codes[i]] * factor
        done = stop
