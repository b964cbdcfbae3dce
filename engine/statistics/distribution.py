"""A sketch in order of value: cells on the real line, each with what is known of the elements inside.

For a complete coding a cell is a point. For 32-bit floats it is the interval of a code, inside which the
count, the mean and the second central sum are known exactly; a `Refinement` splits chosen cells into
points and makes the third and fourth central sums of the others exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.nouns.dtypes import CODINGS, LOW, code_table
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement

F64 = NDArray[np.float64]

_UNIFORM_KURTOSIS = 1.8
_ARRAYS = ("n", "offset", "low", "high", "w2", "w3", "w4")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Cells by increasing value; all arrays are (k,) float64.

    Attributes:
        n: elements in each cell.
        offset: their mean, less `origin`. Kept as a difference so that elements crowded far from zero
            (a norm's weights around 1) keep the digits of their spread.
        low: the smallest value that an element of the cell may have.
        high: the largest.
        w2: sum over the cell's elements of (x - center)^2.
        w3: the same of the third power; taken as 0 where it is not known.
        w4: the same of the fourth power; taken as a uniform density's where it is not known.
        known: whether w3 and w4 are exact everywhere.
        origin: a value in the middle of all.
    """

    n: F64
    offset: F64
    low: F64
    high: F64
    w2: F64
    w3: F64
    w4: F64
    known: bool
    origin: float

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.n)

    def part(self, index: slice | NDArray[np.int64]) -> Distribution:
        """Take some of the cells."""
        return replace(self, **{name: getattr(self, name)[index] for name in _ARRAYS})


def join(*parts: Distribution) -> Distribution:
    """Put distributions of one origin behind each other; their cells must already be in order."""
    if len(parts) == 1:
        return parts[0]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return replace(parts[0], **arrays, known=all(p.known for p in parts))


def points(value: F64, n: F64, origin: float = 0.0) -> Distribution:
    """Cells without width, one for each value."""
    zero = np.zeros(len(value))
    return Distribution(n, value - origin, value, value, zero, zero, zero, known=True, origin=origin)


def by_value(sketch: Sketch) -> NDArray[np.int64]:
    """Positions in the sketch of its finite codes, by increasing value."""
    half = CODINGS[sketch.coding].size // 2
    first_negative = int(np.searchsorted(sketch.codes, half))
    order = np.concatenate(
        [np.arange(len(sketch.codes) - 1, first_negative - 1, -1), np.arange(first_negative)]
    )
    finite: NDArray[np.int64] = order[np.isfinite(code_table(sketch.coding).value[sketch.codes[order]])]
    return finite


def distribution(sketch: Sketch, refinement: Refinement | None = None) -> Distribution:
    """Lay out the finite elements of a sketch by value.

    Args:
        sketch: of any coding.
        refinement: what a second pass found out about a sketch of 32-bit floats.

    Returns:
        its cells; none when no element is finite.
    """
    live = by_value(sketch)
    codes, n = sketch.codes[live], sketch.n[live]
    if sketch.low_sum is None or sketch.low_square_sum is None:
        return points(code_table(sketch.coding).value[codes] + 0.0, n.astype(np.float64))
    low_sum, square_sum = sketch.low_sum[live], sketch.low_square_sum[live]
    cells = _within_extremes(_cells(codes, n, low_sum, square_sum), sketch)
    if refinement is None:
        return cells
    return _refined(cells, codes, refinement, refinement.central_sums(codes, n, low_sum, square_sum))


def _cells(
    codes: NDArray[np.uint16],
    n: NDArray[np.uint64],
    low_sum: NDArray[np.uint64],
    square_sum: NDArray[np.uint64],
) -> Distribution:
    table = code_table("f32")
    value, step = table.value[codes], table.step[codes]
    count = n.astype(np.float64)
    inner = step * (low_sum / count)
    origin = _at_median(value, count)
    far = value + step * (LOW - 1)
    w2 = step**2 * (_n_squares_minus_square(n, square_sum, low_sum) / count)
    w4 = _UNIFORM_KURTOSIS * w2**2 / count
    return Distribution(
        n=count,
        offset=(value - origin) + inner,
        low=np.minimum(value, far),
        high=np.maximum(value, far),
        w2=w2,
        w3=np.zeros(len(n)),
        w4=w4,
        known=False,
        origin=origin,
    )


def _within_extremes(cells: Distribution, sketch: Sketch) -> Distribution:
    """No element lies beyond the exact minimum and maximum: the outermost cells end there."""
    low, high = np.maximum(cells.low, sketch.minimum), np.minimum(cells.high, sketch.maximum)
    return replace(cells, low=low, high=high)


def _at_median(value: F64, count: F64) -> float:
    """Take the median cell's value: wherever a filter looks, within a sigma of the mean, it is there."""
    if not len(value):
        return 0.0
    upto = np.cumsum(count)
    return float(value[np.searchsorted(upto, upto[-1] / 2)])


def _n_squares_minus_square(
    n: NDArray[np.uint64], squares: NDArray[np.uint64], total: NDArray[np.uint64]
) -> F64:
    """Compute n * squares - total**2, which float64 would lose to cancellation, by 128-bit integers."""
    left_high, left_low = _wide_product(n, squares)
    right_high, right_low = _wide_product(total, total)
    high = left_high - right_high - (left_low < right_low)
    difference: F64 = high * 2.0**64 + (left_low - right_low)
    return difference


def _wide_product(
    a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    middle = a1 * b0 + (a0 * b0 >> half)
    carry = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> half) + (carry >> half), a * b


def _refined(
    cells: Distribution, codes: NDArray[np.uint16], refinement: Refinement, central_sums: tuple[F64, F64]
) -> Distribution:
    step = code_table("f32").step[codes]
    exact = replace(cells, w3=step**3 * central_sums[0], w4=step**4 * central_sums[1], known=True)
    parts, start = [], 0
    for index in np.flatnonzero(np.isin(codes, list(refinement.lows))).tolist():
        parts += [exact.part(slice(start, index)), _split(int(codes[index]), refinement, cells.origin)]
        start = index + 1
    return join(*parts, exact.part(slice(start, None)))


def _split(code: int, refinement: Refinement, origin: float) -> Distribution:
    table = code_table("f32")
    lows, counts = refinement.lows[code]
    if table.step[code] < 0:
        lows, counts = lows[::-1], counts[::-1]
    return points(table.value[code] + table.step[code] * lows + 0.0, counts.astype(np.float64), origin)
