"""Central moments from the cells of a distribution.

Moments are summed about the mean, never as raw powers, and parts roll up by the two-level form (Chan,
Golub and LeVeque 1979; Pébay 2008), which keeps the digits that power sums lose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.cells import central_sums, width_sums
from engine.statistics.distribution import Distribution

Ranges = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and central sums m_k = sum((x - mean)^k). Population ones: ddof = 0.

    Properties that are not defined (no element, no spread) are NaN.
    """

    n: float
    mean: float
    m2: float
    m3: float
    m4: float

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.m2 / self.n) if self.n > 0 else math.nan

    @property
    def skewness(self) -> float:
        """E[(x-m)^3] / E[(x-m)^2]^1.5 (eq. 11)."""
        return self._standardised(self.m3, 3)

    @property
    def kurtosis(self) -> float:
        """E[(x-m)^4] / E[(x-m)^2]^2 (eq. 12): Pearson's, 3 for a Gaussian."""
        return self._standardised(self.m4, 4)

    def _standardised(self, central_sum: float, power: int) -> float:
        std = self.std
        if not std > 0:
            return math.nan
        scale = std**power
        return central_sum / self.n / scale if scale > 0 else math.nan


NOTHING = Moments(0.0, math.nan, 0.0, 0.0, 0.0)


def moments(cells: Distribution, ranges: Ranges | None = None) -> Moments:
    """Moments of the elements of a distribution, up to the rounding of a few float64 operations.

    Args:
        cells: the distribution.
        ranges: (r, 2) int64, of which cells: from the first to before the last; of all by default.

    Source: two-level form; the paper's equations 11 and 12 for what is derived from it.
    """
    ranges = _all(cells) if ranges is None else ranges
    sums = central_sums(cells.n, cells.offset, cells.w2, cells.w3, cells.w4, ranges)
    n, mean, m2, m3, m4 = sums.tolist()
    return Moments(n, cells.origin + mean, m2, m3, m4) if n > 0 else NOTHING


def _all(cells: Distribution) -> Ranges:
    return np.array([[0, len(cells)]])


def combine_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the union of two sets of elements."""
    if not a.n:
        return b
    if not b.n:
        return a
    n = a.n + b.n
    mean = a.mean + (b.mean - a.mean) * (b.n / n)
    m2, m3, m4 = 0.0, 0.0, 0.0
    for part in (a, b):
        d = part.mean - mean
        m2 += part.m2 + part.n * d**2
        m3 += part.m3 + 3 * d * part.m2 + part.n * d**3
        m4 += part.m4 + 4 * d * part.m3 + 6 * d**2 * part.m2 + part.n * d**4
    return Moments(n, mean, m2, m3, m4)


def shape_error(cells: Distribution, total: Moments, ranges: Ranges | None = None) -> float:
    """Bound of the error of skewness and kurtosis that comes from unknown w3 and w4.

    Inside a cell of width h, |w3| <= h w2 and 0 <= w4 <= h^2 w2.

    Args:
        cells: the distribution.
        total: the moments in question.
        ranges: of which cells they are; see `moments`.

    Returns:
        the larger of the two absolute bounds; 0 where w3 and w4 are known.
    """
    if cells.known or not total.m2 > 0:
        return 0.0
    ranges = _all(cells) if ranges is None else ranges
    mean = total.mean - cells.origin
    third, fourth = width_sums(cells.low, cells.high, cells.offset, cells.w2, mean, ranges)
    variance = total.m2 / total.n
    return float(max(third / total.n / variance**1.5, fourth / total.n / variance**2))
