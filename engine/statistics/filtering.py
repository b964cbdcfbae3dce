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

from engine.statistics.distribution import Distribution, join
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
    intervals = list(_intervals(total.mean, sigmas * total.std, floor))
    whole, cut = [], []
    for low, high in intervals:
        inside, edges = _clip(cells, low, high)
        whole.append(inside)
        cut += edges
    inner = moments(join(*whole)) if whole else Moments(0.0, math.nan, 0.0, 0.0, 0.0)
    kept = inner
    for _, some in cut:
        kept = combine_moments(kept, _of_cell(some))
    bound = shape_error(join(*whole), kept) if whole else 0.0
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


Cut = tuple[Distribution, Distribution]
"""A cell that an interval cuts: the whole of it, and the part that is taken as kept."""


def _clip(cells: Distribution, low: float, high: float) -> tuple[Distribution, list[Cut]]:
    first = int(np.searchsorted(cells.high, low, "left"))
    last = int(np.searchsorted(cells.low, high, "right"))
    cut = [
        i for i in sorted({first, last - 1})
        if first <= i < last and (cells.low[i] < low or cells.high[i] > high)
    ]  # fmt: skip
    start = first + (first in cut)
    stop = last - (last - 1 in cut)
    pieces = [(cells.part(slice(i, i + 1)), _portion(cells, i, low, high)) for i in cut]
    return cells.part(slice(start, max(start, stop))), pieces


def _portion(cells: Distribution, i: int, low: float, high: float) -> Distribution:
    """Part of a cell inside an interval, as if the density in the cell were uniform."""
    a, b = max(cells.low[i], low), min(cells.high[i], high)
    width = cells.high[i] - cells.low[i]
    n = cells.n[i] * (b - a) / width
    return Distribution(
        n=np.array([n]),
        offset=np.array([(a + b) / 2 - cells.origin]),
        low=np.array([a]),
        high=np.array([b]),
        w2=np.array([n * (b - a) ** 2 / 12]),
        w3=np.zeros(1),
        w4=np.array([n * (b - a) ** 4 / 80]),
        known=False,
        origin=cells.origin,
    )


def _of_cell(cell: Distribution) -> Moments:
    """Moments of one cell alone."""
    n, offset, w2, w3, w4 = (float(a[0]) for a in (cell.n, cell.offset, cell.w2, cell.w3, cell.w4))
    return Moments(n, cell.origin + offset, w2, w3, w4) if n > 0 else NOTHING


def _worst(inner: Moments, kept: Moments, cut: list[Cut], total: Moments) -> float:
    """Largest change of any number when each cut cell is kept whole or not at all."""
    width = max(float(cell.high[0] - cell.low[0]) for cell, _ in cut)
    share = sum(float(cell.n[0]) for cell, _ in cut)
    if not (width <= _COARSE * kept.std and share <= _MUCH * inner.n):
        return math.inf
    corners = [inner]
    for cell, _ in cut:
        whole = _of_cell(cell)
        corners += [combine_moments(corner, whole) for corner in corners]
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
