"""Histograms from counts: how many elements lie between any edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.sketch import Sketch
from engine.statistics.distribution import Distribution, distribution
from engine.statistics.gaussianity import coding_grid

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Elements between edges.

    Attributes:
        edges: (k + 1,) float64, increasing.
        n: (k,) float64, finite elements in [edges[i], edges[i + 1]); whole numbers where no cell is cut.
        total: all finite elements, those beyond the edges too.
    """

    edges: F64
    n: F64
    total: float

    @property
    def density(self) -> F64:
        """(k,) float64, the share of the elements per unit of value."""
        density: F64 = self.n / np.diff(self.edges) / max(self.total, 1)
        return density


def between_values(edges: F64, coding: str) -> F64:
    """Move each edge to the nearest border between cells of a coding, so that every count is exact.

    Values of few bits lie far apart: bins of equal width would hold now one of them, now two, and look like a
    comb. Divided by the width of bins that end half-way between values, the counts are the density.

    Args:
        edges: (k,) float64, increasing.
        coding: whose values are counted.

    Returns:
        increasing edges, fewer where several have moved to one border.
    """
    borders = coding_grid(coding).edges
    borders = borders[borders != 0]  # the two zeros are one value, though cells of 32-bit floats part them
    after = np.clip(np.searchsorted(borders, edges), 1, len(borders) - 1)
    below, above = borders[after - 1], borders[after]
    moved: F64 = np.unique(np.where(edges - below <= above - edges, below, above))
    return moved


def histogram(sketches: Sequence[Sketch], edges: F64) -> Histogram:
    """Count the finite elements of one or several tensors between edges.

    Exact where cells are points or end at the edges; a cell of 32-bit floats that an edge cuts is split as if
    its density were uniform.

    Args:
        sketches: of any codings.
        edges: (k + 1,) float64, increasing.
    """
    upto, total = np.zeros(len(edges)), 0.0
    for sketch in sketches:
        cells = distribution(sketch)
        upto += _below(cells, edges)
        total += float(cells.n.sum())
    return Histogram(edges, np.diff(upto), total)


def _below(cells: Distribution, edges: F64) -> F64:
    """(k,) float64, how many elements are smaller than each edge."""
    if not len(cells):
        return np.zeros(len(edges))
    upto = np.concatenate([[0.0], np.cumsum(cells.n)])
    whole = np.searchsorted(cells.high, edges, "left")  # cells that end before the edge
    cut = np.minimum(whole, len(cells) - 1)
    width = cells.high[cut] - cells.low[cut]
    share = np.clip((edges - cells.low[cut]) / np.where(width > 0, width, np.inf), 0, 1)
    below: F64 = upto[whole] + np.where(whole < len(cells), cells.n[cut] * share, 0.0)
    return below
