"""Bands that were measured, and what is known of the matrix that they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.nouns.matrices import Matrix

F64 = NDArray[np.float64]
Values = NDArray[Any]
"""(n,) uint16 for patterns of bf16, int16 for those of f16, or float32."""

_SHIFT = 1074
"""Every float64 is a whole number of 2**-1074."""


@dataclass(frozen=True, slots=True)
class Node:
    """Sums of the columns of 2**level bands, of those from index * 2**level on.

    Attributes:
        level: how many times as many were put together.
        index: which of that level.
        of_columns: (2, columns) float64, the sum of each column and of its squares.
    """

    level: int
    index: int
    of_columns: F64


@dataclass(frozen=True, slots=True)
class Run:
    """Bands that follow each other.

    Attributes:
        first: the first of them.
        stop: the one behind the last.
        of_rows: (2, rows) float64, the sum of each row and of its squares.
        top: (columns,) the first row, as stored.
        bottom: (columns,) the last row.
        nodes: the sums of columns; no two that the tree puts together.
    """

    first: int
    stop: int
    of_rows: F64
    top: Values
    bottom: Values
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loose:
    """Elements that follow each other and fill no band.

    Attributes:
        first: index of the first.
        values: they.
    """

    first: int
    values: Values


@dataclass(frozen=True, slots=True)
class Bands:
    """What is known of a matrix, or of part of it.

    Attributes:
        matrix: which it is.
        across: sum of the products of neighbours in a row, in units of 2**-1074.
        down: the same in a column.
        runs: by increasing band, no two that touch.
        loose: by increasing element, no two that touch.
        broken: whether there are NaN or infinities; then nothing else is known.
    """

    matrix: Matrix
    across: int = 0
    down: int = 0
    runs: tuple[Run, ...] = ()
    loose: tuple[Loose, ...] = ()
    broken: bool = False

    @property
    def zero_rows(self) -> int | None:
        """How many rows are zeros throughout; None while that is not known."""
        run = self.whole
        return None if run is None else int(np.count_nonzero(run.of_rows[1] == 0))

    @property
    def whole(self) -> Run | None:
        """All of the matrix; None while some is missing, or where it is broken."""
        run = self.runs[0] if len(self.runs) == 1 else None
        return run if run and (run.first, run.stop) == (0, self.matrix.bands) else None


def add_columns(run: Run) -> F64:
    """Sum over all bands of a run, (2, columns), in the order of the tree."""
    total = run.nodes[-1].of_columns
    for node in reversed(run.nodes[:-1]):
        total = node.of_columns + total
    return total


def as_float(units: int) -> float:
    """The nearest float64 to so many units of 2**-1074."""
    return units / (1 << _SHIFT)


def as_units(number: float) -> int:
    """How many units of 2**-1074 a finite float64 is, exactly."""
    top, bottom = number.as_integer_ratio()
    return top * ((1 << _SHIFT) // bottom)
