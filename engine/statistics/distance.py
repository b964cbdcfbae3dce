"""How far two distributions are from each other: Wasserstein-1 and Kolmogorov-Smirnov, from their counts.

Both are exact where cells are points, up to rounding. Of 32-bit floats, count, mean and spread inside of a
cell are known and the rest is not: there the numbers are those of a uniform density with this mean and this
spread, and come with a bound of what that can be off by. Two facts make the bounds. Outside of the *blocks*,
the unions of cells that overlap, both distribution functions are known. And the integral of a distribution
function over a block follows from the means alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.statistics.distribution import Distribution

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Distance:
    """How far apart; NaN when one of the two has no elements.

    Attributes:
        w1: Wasserstein-1, the integral of |F_a - F_b|, in units of the elements: how far an element has to
            move on average to make one distribution of the other.
        w1_error: w1 is off by no more than this; 0 for complete codings.
        ks: Kolmogorov-Smirnov, the supremum of |F_a - F_b|, in [0, 1].
        ks_error: the same of ks.
    """

    w1: float
    w1_error: float
    ks: float
    ks_error: float


def distance(a: Distribution, b: Distribution) -> Distance:
    """Measure how far apart the finite elements of two tensors are; the order of the two does not matter.

    Source: W1 = integral of |F_a - F_b| on the line (Vallender 1974).
    """
    if not len(a) or not len(b):
        return Distance(*[math.nan] * 4)
    x, y = _side(a), _side(b)
    blocks = _blocks(x, y)
    steps = _steps(x, y, blocks)
    inside = np.bincount(steps.block, steps.area, len(blocks.width) + 1)
    sure, most = np.abs(blocks.area), _largest_area(blocks)
    doubt = np.maximum(most - inside[:-1], inside[:-1] - sure)
    bound = np.minimum(np.maximum(doubt, 0), blocks.spread)
    at_edges = float(np.abs(blocks.after).max())
    possible = max(at_edges, float(blocks.above.max()), float(blocks.below.max()))
    return Distance(
        w1=float(inside.sum()),
        w1_error=float(bound.sum()),
        ks=steps.supremum,
        ks_error=max(possible - steps.supremum, steps.supremum - at_edges, 0.0),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two, cell by cell; all arrays are (k,) float64, by increasing value.

    Attributes:
        n: elements.
        low, high: between which they lie; equal when all are one value.
        mean: their mean.
        start, end: between which they are spread evenly.
        spread: no more than this is the W1 distance, for one element, between them and what is even.
    """

    n: F64
    low: F64
    high: F64
    mean: F64
    start: F64
    end: F64
    spread: F64


def _side(cells: Distribution) -> _Side:
    mean = cells.origin + cells.offset
    wide = (cells.high > cells.low) & (cells.w2 > 0)
    # Without spread all elements of a cell are one 32-bit float: rounding takes off what the sum left of it.
    only = np.clip(mean.astype(np.float32).astype(np.float64), cells.low, cells.high)
    value = np.where(cells.high > cells.low, only, cells.low)
    low, high = np.where(wide, cells.low, value), np.where(wide, cells.high, value)
    mean = np.where(wide, np.clip(mean, low, high), value)
    std = np.where(wide, np.sqrt(cells.w2 / cells.n), 0.0)
    reach = np.minimum(math.sqrt(3) * std, np.minimum(mean - low, high - mean))
    # Both are at most their mean absolute deviations away from the mean; that of anything is at most its std.
    return _Side(cells.n, low, high, mean, mean - reach, mean + reach, std + reach / 2)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where cells lie, and the difference D = F_a - F_b there; all arrays are (k,) float64.

    Attributes:
        low, high: a block's edges, both within it.
        width: high - low.
        after: D behind the block; before the next one it is still that.
        area: integral of D over the block.
        above: the largest that D can be inside, at least 0; 0 for blocks without width.
        below: the largest that -D can be inside, likewise.
        spread: no more than this can the integral of |D| differ from that of evenly filled cells.
    """

    low: F64
    high: F64
    width: F64
    after: F64
    area: F64
    above: F64
    below: F64
    spread: F64


def _blocks(a: _Side, b: _Side) -> _Blocks:
    lows, highs = np.concatenate([a.low, b.low]), np.concatenate([a.high, b.high])
    order = np.argsort(lows, kind="stable")
    reached = np.maximum.accumulate(highs[order])
    first = np.concatenate([[True], lows[order][1:] > reached[:-1]])
    last = np.concatenate([first[1:], [True]])
    block = np.empty(len(order), np.int64)
    block[order] = np.cumsum(first) - 1
    low, high = lows[order][first], reached[last]
    width = high - low
    of_a, of_b = block[: len(a.n)], block[len(a.n) :]
    (a_before, a_after, a_area, a_spread), (b_before, b_after, b_area, b_spread) = (
        _in_blocks(side, which, high) for side, which in ((a, of_a), (b, of_b))
    )
    return _Blocks(
        low, high, width,
        after=a_after - b_after,
        area=(a_before - b_before) * width + (a_area - b_area),
        above=np.where(width > 0, np.maximum(a_after - b_before, 0), 0),
        below=np.where(width > 0, np.maximum(b_after - a_before, 0), 0),
        spread=a_spread + b_spread,
    )  # fmt: skip


def _in_blocks(side: _Side, block: I64, high: F64) -> tuple[F64, F64, F64, F64]:
    """F before and after each block, the integral of what it grows by inside, and the bound of the spread."""
    k, total = len(high), side.n.sum()
    after = np.cumsum(np.bincount(block, side.n, k)) / total
    before = np.concatenate([[0.0], after[:-1]])
    area = np.bincount(block, side.n * (high[block] - side.mean), k) / total
    return before, after, area, np.bincount(block, side.n * side.spread, k) / total


def _largest_area(blocks: _Blocks) -> F64:
    """Largest integral of |D| over each block that its signed integral and the limits of D allow.

    With P and Q the integrals of D where it is positive and of -D where it is negative, P - Q is known,
    and P <= above * w, Q <= below * (width - w) for the width w where D is positive. That limits the smaller
    of the two, and the integral of |D| is |P - Q| and twice the smaller.
    """
    positive = blocks.area >= 0
    area = np.abs(blocks.area)
    near = np.where(positive, blocks.above, blocks.below)
    far = np.where(positive, blocks.below, blocks.above)
    both = np.where(near + far > 0, near + far, 1)
    largest: F64 = area + 2 * far * np.maximum(near * blocks.width - area, 0) / both
    return largest


@dataclass(frozen=True, slots=True)
class _Steps:
    """The integral of |D| between neighbouring knots, of cells that are filled evenly.

    Attributes:
        area: (k,) float64.
        block: (k,) int64, the block that it lies in; the number of blocks for what lies between them.
        supremum: the largest |D| anywhere.
    """

    area: F64
    block: I64
    supremum: float


def _steps(a: _Side, b: _Side, blocks: _Blocks) -> _Steps:
    wide = blocks.width > 0
    knots = np.unique(np.concatenate([a.start, a.end, b.start, b.end, blocks.low[wide], blocks.high[wide]]))
    (a_left, a_right), (b_left, b_right) = _function(a, knots), _function(b, knots)
    from_, to = (a_right - b_right)[:-1], (a_left - b_left)[1:]
    u, v = np.abs(from_), np.abs(to)
    both = np.where(u + v > 0, u + v, 1)
    mean = np.where((from_ < 0) == (to < 0), (u + v) / 2, (u * u + v * v) / (2 * both))
    block = np.searchsorted(blocks.low, knots[:-1], "right") - 1
    outside = knots[:-1] >= blocks.high[block]
    supremum = max(float(np.abs(a_right - b_right).max()), float(np.abs(a_left - b_left).max()))
    return _Steps(mean * np.diff(knots), np.where(outside, len(blocks.low), block), supremum)


def _function(side: _Side, at: F64) -> tuple[F64, F64]:
    """Shares of the elements below each value, and of those not above it, of cells that are filled evenly."""
    below = np.concatenate([[0.0], np.cumsum(side.n)])
    return (
        _up_to(side, below, at, np.searchsorted(side.end, at, "left")),
        _up_to(side, below, at, np.searchsorted(side.end, at, "right")),
    )


def _up_to(side: _Side, below: F64, at: F64, whole: NDArray[np.intp]) -> F64:
    """Share of the first `whole` cells and of what the next one holds below `at`."""
    i = np.minimum(whole, len(side.n) - 1)
    width = side.end[i] - side.start[i]
    share = np.clip((at - side.start[i]) / np.where(width > 0, width, 1), 0, 1)
    begun = (whole < len(side.n)) & (side.start[i] < at)
    upto: F64 = (below[whole] + np.where(begun, side.n[i] * share, 0.0)) / below[-1]
    return upto
