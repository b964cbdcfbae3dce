"""How far a distribution is from the Gaussian of the same mean and sigma."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engine.kernels.cells import distance_to_normal, entropy, gaussian_entropy
from engine.nouns.dtypes import CODINGS, code_table
from engine.sketch import Sketch
from engine.statistics.distribution import Distribution
from engine.statistics.moments import Moments

F64 = NDArray[np.float64]

_FLAT = 2.0**-16  # closer to the mean than this many sigmas, the density does not change
_FAR = 9.0  # sigmas beyond which the density is nothing, even times any count


def kolmogorov_smirnov(cells: Distribution, total: Moments) -> float:
    """Kolmogorov-Smirnov distance to the fitted normal: sup |F_n(x) - Phi((x - mean) / std)|.

    Exact where cells are points; for 32-bit floats the supremum over the edges of the cells.

    Returns:
        the distance in [0, 1], NaN when there is no spread.
    """
    if not total.std > 0:
        return math.nan
    return float(distance_to_normal(cells.low, cells.high, cells.n, total.mean, total.std))


def entropy_bits(sketch: Sketch) -> float:
    """Shannon entropy of the codes of the finite elements, in bits; the two zeros are one symbol.

    Of 32-bit floats it is the entropy of their top halves.

    Returns:
        the entropy, NaN without finite elements.
    """
    value = code_table(sketch.coding).value[sketch.codes]
    return float(entropy(sketch.n, value, CODINGS[sketch.coding].complete))


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of a coding by value: what rounds (or, of 32-bit floats, truncates) to each value.

    Attributes:
        edges: (k + 1,) float64, increasing.
        width: (k,) float64.
        weight: (k,) float64, width * log2(width), 0 for empty cells.
    """

    edges: F64
    width: F64
    weight: F64


@cache
def coding_grid(coding: str) -> Grid:
    """The cells of a coding, worked out once a process."""
    table = code_table(coding)
    value = table.value[table.order]
    if CODINGS[coding].complete:
        value = np.unique(value)
        inner = (value[1:] + value[:-1]) / 2
        edges = np.concatenate([[value[0]], inner, [value[-1]]])
    else:
        far = value + table.step[table.order] * (1 << 16)
        edges = np.unique(np.concatenate([value, far]))
    width = np.diff(edges)
    return Grid(edges, width, width * np.log2(width))


def gaussian_entropy_bits(coding: str, total: Moments) -> float:
    """Entropy in bits of the Gaussian with these moments, stored in this coding.

    The difference to `entropy_bits` is the distance in information: 0 for a Gaussian, positive when the
    distribution is more concentrated (negentropy, up to the rounding of the coding).

    Returns:
        the entropy, NaN when there is no spread.
    """
    if not total.std > 0:
        return math.nan
    grid = coding_grid(coding)
    near, far = _FLAT * total.std, _FAR * total.std
    start = int(np.searchsorted(grid.edges, total.mean - far, "right")) - 1
    stop = int(np.searchsorted(grid.edges, total.mean + far, "left"))
    start, stop = max(start, 0), min(stop, len(grid.width))
    first = int(np.searchsorted(grid.edges, total.mean - near, "left"))
    last = int(np.searchsorted(grid.edges, total.mean + near, "right")) - 1
    if last <= first:  # no cell is so narrow
        return _tail(grid, start, stop, total)
    return (
        _tail(grid, start, first, total) + _centre(grid, first, last, total) + _tail(grid, last, stop, total)
    )


def _tail(grid: Grid, start: int, stop: int, total: Moments) -> float:
    edges = grid.edges[start : stop + 1]
    return float(gaussian_entropy(edges, total.mean, total.std)) if stop > start else 0.0


def _centre(grid: Grid, start: int, stop: int, total: Moments) -> float:
    """Entropy of the cells next to the mean, where the density is flat: p = density * width."""
    density = 1 / (total.std * math.sqrt(2 * math.pi))
    width, weight = grid.width[start:stop].sum(), grid.weight[start:stop].sum()
    return float(-density * (width * math.log2(density) + weight))
