"""How a tensor is seen as one matrix, and which of its rows are measured at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from engine.nouns.records import TensorInfo

MOST_ROWS = 1 << 21
MOST_COLUMNS = 1 << 19
"""Larger matrices are not measured: what is kept of each row and each column is 16 bytes."""
NARROW = 32
"""Trailing dimensions are taken together until a row has so many: a convolution's kernel is no row."""

SMALLEST_SIDE = 16
"""Singular values of a matrix with a smaller side are not looked at: what noise has is not known there."""
MOST_ELEMENTS = 1 << 26
"""For its singular values a matrix is in memory whole, as 32-bit floats; larger ones are left out."""

_BAND = 1 << 18  # elements: half a MiB of bf16, which stays in the second-level cache
_LEAST, _MOST, _UNIT = 8, 1024, 8
_WAITING, _WAITING_COLUMNS = 64, 1 << 20  # of 16 bytes each


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows and columns, of elements in C order.

    Attributes:
        rows: how many.
        columns: elements of each.
    """

    rows: int
    columns: int

    @property
    def elements(self) -> int:
        """All of them."""
        return self.rows * self.columns

    @property
    def band(self) -> int:
        """Rows that are measured at once. It follows from the shape alone, and so do the bits."""
        return min(_MOST, max(_LEAST, _BAND // self.columns // _UNIT * _UNIT))

    @property
    def bands(self) -> int:
        """How many bands there are; the last may have fewer rows."""
        return -(-self.rows // self.band)

    @property
    def waiting(self) -> int:
        """Bands whose sums wait to be joined: joining one by one would copy all rows each time."""
        return max(2, min(_WAITING, _WAITING_COLUMNS // self.columns))

    def start(self, band: int) -> int:
        """Index of the first element of a band; of the one behind the last, how many there are."""
        return min(band * self.band, self.rows) * self.columns


def as_matrix(shape: tuple[int, ...]) -> Matrix | None:
    """See a shape as a matrix: the last dimensions are the columns, as many as make a row of 32 elements.

    Returns:
        the matrix, a row for a shape of one dimension; None for a scalar and for no elements.
    """
    if not shape or not prod(shape):
        return None
    columns, left = shape[-1], len(shape) - 1
    while columns < NARROW and left > 1:
        left -= 1
        columns *= shape[left]
    return Matrix(prod(shape[:left]), columns)


def measured_matrix(info: TensorInfo) -> Matrix | None:
    """The matrix that a tensor is measured as, None where it is not measured."""
    return None if why_unmeasured(info) else as_matrix(info.shape)


def why_unmeasured(info: TensorInfo) -> str | None:
    """Why neighbours, rows and columns of a tensor are not measured; None when they are."""
    if info.coding is None:
        return info.why
    matrix = as_matrix(info.shape)
    if matrix is None:
        return "no rows" if info.shape else "a single number"
    if not info.ordered:
        return "stored in another order than that of its rows"
    if matrix.rows > MOST_ROWS or matrix.columns > MOST_COLUMNS:
        return f"more than {MOST_ROWS:,} rows or {MOST_COLUMNS:,} columns"
    return None


def spectrum_matrix(info: TensorInfo, side: int) -> Matrix | None:
    """The matrix whose singular values are looked at, None where they are not.

    Args:
        info: of the tensor.
        side: the largest smaller side.
    """
    matrix = measured_matrix(info)
    if matrix is None or matrix.elements > MOST_ELEMENTS or info.form == "codes":
        return None
    return matrix if SMALLEST_SIDE <= min(matrix.rows, matrix.columns) <= side else None
