"""The k-sigma filter of the paper's section 2, with or without its small-value floor (Table 5).

Kept are the elements in the closed interval [mean - t std, mean + t std] whose magnitude is at least the
floor. `ratio` is their share of the finite elements; skewness and kurtosis are taken about their own mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from engine.statistics.distribution import Distribution
from engine.statistics.moments import NOTHING, Moments, combine_moments, moments, shape_error

SIGMAS = (3.0, 2.0)
FLOORS = (0.0, 1e-3)

_MARGIN = 1.25  # elements of a cut cell may lie anywhere on their side of the cut
# There is no bound where the corners of what cut cells may hold do not tell: one of them is wider than this
# many sigmas of what is kept, or they hold more than this share of it.
_COARSE = 0.25
_MUCH = 0.05


@dataclass(frozen=True, slots=True)
class Filtered:
    """What the filter leaves.

    Attributes:
        sigmas: t, the half-width of the interval in standard deviations.
        floor: magnitudes below it are dropped.
        kept: how many elements are left; rounded where `error_bound` is not 0.
        ratio: kept / finite.
        moments: of what is left.
        error_bound: none of ratio, mean, std, skewness and kurtosis is off by more than this; 0 for
            complete codings and after a second pass, infinite when only a second pass can tell.
    """

    sigmas: float
    floor: float
    kept: int
    ratio: float
    moments: Moments
    error_bound: float


def filtered(cells: Distribution, total: Moments, sigmas: float, floor: float = 0.0) -> Filtered:
    """Filter a distribution.

    Args:
        cells: the distribution.
        total: its moments.
        sigmas: t >= 0.
        floor: smallest magnitude that is kept, in units of the elements.

    Returns:
        count, ratio, moments and their error bound.
    """
    if not total.n:
        return Filtered(sigmas, floor, 0, math.nan, total, 0.0)
    clipped = [_clip(cells, *i) for i in _intervals(total.mean, sigmas * total.std, floor)]
    whole = np.array([inside for inside, _ in clipped], np.int64).reshape(-1, 2)
    cut = [edge for _, edges in clipped for edge in edges]
    inner = kept = moments(cells, whole)
    for edge in cut:
        kept = combine_moments(kept, edge.kept)
    bound = shape_error(cells, kept, whole)
    if cut:
        bound += _MARGIN * _worst(inner, kept, cut, total)
    return Filtered(sigmas, floor, round(kept.n), kept.n / total.n, kept, bound)


def interval_edges(total: Moments) -> list[float]:
    """Every value at which one of the standard filters cuts."""
    return sorted(
        {e for t, f in product(SIGMAS, FLOORS) for i in _intervals(total.mean, t * total.std, f) for e in i}
    )


def _intervals(mean: float, reach: float, floor: float) -> Iterator[tuple[float, float]]:
    low, high = mean - reach, mean + reach
    if floor <= 0:
        yield low, high
        return
    if low <= min(-floor, high):
        yield low, min(-floor, high)
    if max(floor, low) <= high:
        yield max(floor, low), high


@dataclass(frozen=True, slots=True)
class Cut:
    """A cell that an interval cuts.

    Attributes:
        width: of the cell.
        whole: moments of all its elements.
        kept: of the part that is taken as kept: what lies inside, if the density in the cell is uniform.
    """

    width: float
    whole: Moments
    kept: Moments


def _clip(cells: Distribution, low: float, high: float) -> tuple[tuple[int, int], list[Cut]]:
    """Find the cells inside an interval, the first and the one behind the last, and those that it cuts."""
    first = int(np.searchsorted(cells.high, low, "left"))
    last = int(np.searchsorted(cells.low, high, "right"))
    cut = [
        i for i in sorted({first, last - 1})
        if first <= i < last and (cells.low[i] < low or cells.high[i] > high)
    ]  # fmt: skip
    start = first + (first in cut)
    stop = last - (last - 1 in cut)
    return (start, max(start, stop)), [_cut(cells, i, low, high) for i in cut]


def _cut(cells: Distribution, i: int, low: float, high: float) -> Cut:
    n, begin, end = float(cells.n[i]), float(cells.low[i]), float(cells.high[i])
    if not n > 0:
        return Cut(end - begin, NOTHING, NOTHING)
    mean = cells.origin + float(cells.offset[i])
    whole = Moments(n, mean, float(cells.w2[i]), float(cells.w3[i]), float(cells.w4[i]))
    a, b = max(begin, low), min(end, high)
    n *= (b - a) / (end - begin)
    part = Moments(n, (a + b) / 2, n * (b - a) ** 2 / 12, 0.0, n * (b - a) ** 4 / 80) if n > 0 else NOTHING
    return Cut(end - begin, whole, part)


def _worst(inner: Moments, kept: Moments, cut: list[Cut], total: Moments) -> float:
    """Largest change of any number when each cut cell is kept whole or not at all."""
    width = max(edge.width for edge in cut)
    share = sum(edge.whole.n for edge in cut)
    if not (width <= _COARSE * kept.std and share <= _MUCH * inner.n):
        return math.inf
    corners = [inner]
    for edge in cut:
        corners += [combine_moments(corner, edge.whole) for corner in corners]
    taken = _numbers(kept, total)
    return max(_difference(_numbers(corner, total), taken) for corner in corners)


def _numbers(some: Moments, total: Moments) -> tuple[float, ...]:
    return some.n / total.n, some.mean, some.std, some.skewness, some.kurtosis


def _difference(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if math.isnan(x) != math.isnan(y):
            return math.inf
        if not math.isnan(x):
            worst = max(worst, abs(x - y))
    return worst
