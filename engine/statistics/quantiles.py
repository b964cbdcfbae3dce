"""Order statistics from counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.statistics.distribution import Distribution

PROBABILITIES = {
    "p001": 0.001, "p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5,
    "p75": 0.75, "p95": 0.95, "p99": 0.99, "p999": 0.999,
}  # fmt: skip
"""The quantiles kept for every tensor, by column."""


def quantiles(cells: Distribution, probabilities: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles with linear interpolation between order statistics (type 7 of Hyndman and Fan 1996).

    Exact where cells are points; elsewhere off by less than the width of a cell, inside which the
    elements are taken as evenly spread.

    Args:
        cells: the distribution.
        probabilities: each in [0, 1].

    Returns:
        (len(probabilities),) float64, NaN without elements.
    """
    if not len(cells):
        return np.full(len(probabilities), np.nan)
    upto = np.cumsum(cells.n)
    rank = np.asarray(probabilities) * (upto[-1] - 1)
    below = np.floor(rank)
    a = _order_statistic(cells, upto, below)
    b = _order_statistic(cells, upto, np.minimum(below + 1, upto[-1] - 1))
    t = rank - below
    between: NDArray[np.float64] = np.where(t >= 0.5, b - (b - a) * (1 - t), a + (b - a) * t)
    return between


def ranks_cells(cells: Distribution, probabilities: Sequence[float]) -> NDArray[np.int64]:
    """Indices of the cells that hold the order statistics of these quantiles."""
    upto = np.cumsum(cells.n)
    below = np.floor(np.asarray(probabilities) * (upto[-1] - 1))
    rank = np.concatenate([below, np.minimum(below + 1, upto[-1] - 1)])
    return np.unique(np.searchsorted(upto, rank, "right"))


def _order_statistic(
    cells: Distribution, upto: NDArray[np.float64], rank: NDArray[np.float64]
) -> NDArray[np.float64]:
    i = np.searchsorted(upto, rank, "right")
    share = (rank - (upto[i] - cells.n[i]) + 0.5) / cells.n[i]
    value: NDArray[np.float64] = cells.low[i] + (cells.high[i] - cells.low[i]) * share
    return value
