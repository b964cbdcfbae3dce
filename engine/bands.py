"""What of a matrix depends on the order of its elements: sums of rows, columns and products of neighbours.

A matrix is cut into bands of whole rows, by its shape alone. Each is measured by itself, always in the same
order of operations, and what is known of several is put together so that it does not matter which were known
first: rows lie side by side, sums of columns are added up along a binary tree of bands, and single numbers
    are
added up without rounding.

    measure(x) == combine(measure(part) for part in cut(x))       for every cut and every order, to the bit

The first and last rows of what was measured are kept for the products with the rows beyond, and elements that
fill no band are kept as they are, until the others come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import reals, rows
from engine.nouns.matrices import Matrix

F64 = NDArray[np.float64]
Values = NDArray[Any]
"""(n,) uint16 for patterns of bf16, int16 for those of f16, or float32."""

_SHIFT = 1074
"""Every float64 is a whole number of 2**-1074."""
_SMALL, _FAR = 2.0**-80, 64.0


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


def combine_bands(a: Bands, b: Bands) -> Bands:
    """Put together what is known of different parts of one matrix. Associative and commutative.

    Raises:
        ValueError: of different matrices.
    """
    if a.matrix != b.matrix:
        raise ValueError(f"cannot combine bands of {a.matrix} and {b.matrix}")
    if a.broken or b.broken:
        return Bands(a.matrix, broken=True)
    gathered = Gathered(a.matrix)
    for part in (a, b):
        gathered.across += part.across
        gathered.down += part.down
    for loose in sorted((*a.loose, *b.loose), key=lambda x: x.first):
        gathered.take_loose(loose)
    return gathered.bands((*a.runs, *b.runs))


def pack_bands(bands: Bands) -> bytes:
    """Put it into bytes; see `unpack_bands`."""
    arrays: list[NDArray[Any]] = []
    for run in bands.runs:
        arrays += [run.of_rows, run.top, run.bottom, *(node.of_columns for node in run.nodes)]
    arrays += [loose.values for loose in bands.loose]
    said = {
        "matrix": [bands.matrix.rows, bands.matrix.columns],
        "sums": [hex(bands.across), hex(bands.down)],
        "runs": [[r.first, r.stop, [[n.level, n.index] for n in r.nodes]] for r in bands.runs],
        "loose": [loose.first for loose in bands.loose],
        "broken": bands.broken,
        "arrays": [[a.dtype.str, list(a.shape)] for a in arrays],
    }
    return json.dumps(said).encode() + b"\n" + b"".join(a.tobytes() for a in arrays)


def unpack_bands(data: bytes) -> Bands:
    """Read what `pack_bands` made, to the bit."""
    text, _, rest = data.partition(b"\n")
    said = json.loads(text)
    arrays = _arrays(said["arrays"], rest)
    runs = []
    for first, stop, nodes in said["runs"]:
        of_rows, top, bottom = next(arrays), next(arrays), next(arrays)
        runs.append(
            Run(
                first,
                stop,
                of_rows,
                top,
                bottom,
                tuple(Node(level, index, next(arrays)) for level, index in nodes),
            )
        )
    loose = tuple(Loose(first, next(arrays)) for first in said["loose"])
    across, down = (int(units, 16) for units in said["sums"])
    return Bands(Matrix(*said["matrix"]), across, down, tuple(runs), loose, said["broken"])


def _arrays(kinds: list[tuple[str, list[int]]], data: bytes) -> Iterator[NDArray[Any]]:
    place = 0
    for kind, shape in kinds:
        array = np.frombuffer(data, np.dtype(kind), prod(shape), place).reshape(shape).copy()
        place += array.nbytes
        yield array


class BandCounter:
    """Measures consecutive elements of a matrix, block by block.

    Args:
        matrix: what they are of.
        first: index of the first.
    """

    def __init__(self, matrix: Matrix, first: int) -> None:
        self._gathered = Gathered(matrix)
        self._matrix, self._next = matrix, first
        self._begun = first  # of what lies in the buffer
        self._buffer: Values | None = None

    def add(self, values: Values) -> None:
        """Add the elements that follow those before; see `Values`."""
        done, matrix = 0, self._matrix
        while done < values.size and not self._gathered.broken:
            band = self._next // (matrix.band * matrix.columns)
            start, stop = matrix.start(band), matrix.start(band + 1)
            part = values[done : done + stop - self._next]
            if self._next == start and part.size == stop - start:
                self._gathered.measure(band, part)
                self._begun = stop
            else:
                self._keep(part, start, stop)
            done += part.size
            self._next += part.size

    def _keep(self, part: Values, start: int, stop: int) -> None:
        """Put elements by until their band is full."""
        if self._buffer is None:
            self._buffer = np.empty(self._matrix.band * self._matrix.columns, part.dtype)
        reached = self._next + part.size
        self._buffer[self._next - start : reached - start] = part
        if reached == stop:
            self._gathered.take_loose(Loose(self._begun, self._buffer[self._begun - start : stop - start]))
            self._begun = stop

    def bands(self) -> Bands:
        """What was found out."""
        if self._buffer is not None and self._begun < self._next and not self._gathered.broken:
            start = self._begun - self._begun % (self._matrix.band * self._matrix.columns)
            rest = self._buffer[self._begun - start : self._next - start]
            self._gathered.take_loose(Loose(self._begun, rest))
        return self._gathered.bands(())


class Gathered:
    """What is being put together.

    Args:
        matrix: what it is of.
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.across = self.down = 0
        self.broken = False
        self._runs: list[Run] = []
        self._loose: list[Loose] = []

    def measure(self, band: int, values: Values) -> None:
        """Take a whole band, and measure it."""
        found = _measure(self.matrix, values)
        if found is None:
            self.broken = True
        else:
            self._put(band, values, *found)

    def take(
        self, band: int, values: Values, of_rows: F64, of_columns: F64, across: float, down: float
    ) -> None:
        """Take a whole band that was measured in float32 elsewhere; see `engine.kernels.rows`."""
        if _is_precise(of_rows, values):
            _square_again(of_rows, values)
            self._put(band, values, of_rows, of_columns, across, down)
        else:
            self.measure(band, values)

    def _put(
        self, band: int, values: Values, of_rows: F64, of_columns: F64, across: float, down: float
    ) -> None:
        self.across += _units(across)
        self.down += _units(down)
        columns = self.matrix.columns
        top, bottom = values[:columns].copy(), values[-columns:].copy()
        self._runs.append(Run(band, band + 1, of_rows, top, bottom, (Node(0, band, of_columns),)))
        if len(self._runs) > self.matrix.waiting:
            self._join()

    def take_loose(self, loose: Loose) -> None:
        """Take elements of one band, behind those that were taken before."""
        matrix = self.matrix
        band = loose.first // (matrix.band * matrix.columns)
        start, stop = matrix.start(band), matrix.start(band + 1)
        before = self._loose[-1] if self._loose else None
        if before is not None and before.first + before.values.size == loose.first > start:
            self._loose.pop()
            loose = Loose(before.first, np.concatenate([before.values, loose.values]))
        if loose.values.size == stop - start:
            self.measure(band, loose.values)
        else:
            self._loose.append(Loose(loose.first, loose.values.copy()))

    def bands(self, more: tuple[Run, ...]) -> Bands:
        """What is known, with some runs more."""
        if self.broken:
            return Bands(self.matrix, broken=True)
        self._runs += more
        self._join()
        return Bands(self.matrix, self.across, self.down, tuple(self._runs), tuple(self._loose))

    def _join(self) -> None:
        """Join the runs that touch."""
        groups: list[list[Run]] = []
        for run in sorted(self._runs, key=lambda r: r.first):
            if groups and groups[-1][-1].stop == run.first:
                self.down += _units(_dot(groups[-1][-1].bottom, run.top))
                groups[-1].append(run)
            else:
                groups.append([run])
        self._runs = [_joined(group) for group in groups]


def _joined(runs: list[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    of_rows = np.concatenate([r.of_rows for r in runs], axis=1)
    nodes = _grown(node for r in runs for node in r.nodes)
    return Run(runs[0].first, runs[-1].stop, of_rows, runs[0].top, runs[-1].bottom, nodes)


def _grown(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Add up the halves of the tree of which both are there."""
    found: dict[tuple[int, int], F64] = {}
    for node in nodes:
        level, index, of_columns = node.level, node.index, node.of_columns
        while (other := found.pop((level, index ^ 1), None)) is not None:
            of_columns = other + of_columns  # addition of two does commute
            level, index = level + 1, index >> 1
        found[level, index] = of_columns
    ordered = sorted(found, key=lambda key: key[1] << key[0])
    return tuple(Node(*key, found[key]) for key in ordered)


def _measure(matrix: Matrix, values: Values) -> tuple[F64, F64, float, float] | None:
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
    if not _is_precise(of_rows, values):
        wide = np.empty(rows.WORK, np.float64)
        rows.measure_rows(_as_f32(values), columns, wide, of_rows, of_columns, of_pairs)
        if not np.isfinite(of_rows[1].sum()):
            return None
    _square_again(of_rows, values)
    return of_rows, of_columns, float(of_pairs[0]), float(of_pairs[1])


def _square_again(of_rows: F64, values: Values) -> None:
    """Make sure that only rows of zeros have no squares: those of tiny elements are too small for float32."""
    empty = np.flatnonzero(of_rows[1] == 0)
    if empty.size:
        wide = _as_f32(values.reshape(of_rows.shape[1], -1)[empty]).astype(np.float64)
        of_rows[1, empty] = (wide * wide).sum(axis=1)


def _is_nothing(values: Values) -> bool:
    """Whether all are +0; words are looked at up to the first that is not 0."""
    words = values[: values.size // 4 * 4].view(np.uint64)
    return not words.any() and not values[words.size * 8 // values.itemsize :].view(np.uint8).any()


def _is_precise(of_rows: F64, values: Values) -> bool:
    """Whether float32 was enough: nothing overflowed or underflowed, and the mean is not far above sigma."""
    total, squares = (of_rows.sum(axis=1) / values.size).tolist()
    return bool(_SMALL < squares < 1 / _SMALL and total * total < _FAR * (squares - total * total))


def _dot(a: Values, b: Values) -> float:
    return float(reals.dot(_as_f32(a), _as_f32(b)))


def _as_f32(values: Values) -> NDArray[np.float32]:
    if values.dtype == np.uint16:
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if values.dtype == np.int16:
        with np.errstate(invalid="ignore"):
            return values.view(np.float16).astype(np.float32)
    return values


def _units(number: float) -> int:
    top, bottom = number.as_integer_ratio()
    return top * ((1 << _SHIFT) // bottom)
