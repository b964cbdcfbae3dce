"""Central moments from the cells of a distribution.

Moments are summed about the mean, never as raw powers, and parts roll up by the two-level form (Chan,
Golub and LeVeque 1979; Pébay 2008), which keeps the digits that power sums lose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.kernels.reals import compensated_sum
from engine.statistics.distribution import Distribution


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


def moments(cells: Distribution) -> Moments:
    """Moments of all elements of a distribution, up to the rounding of a few float64 operations.

    Source: two-level form; the paper's equations 11 and 12 for what is derived from it.
    """
    n = float(cells.n.sum())
    if not n > 0:
        return NOTHING
    mean = float(compensated_sum(cells.n * cells.offset)) / n
    d = cells.offset - mean
    d2 = d * d
    m2 = (cells.n * d2 + cells.w2).sum()
    m3 = compensated_sum(cells.n * d2 * d + 3 * d * cells.w2 + cells.w3)
    m4 = (cells.n * d2 * d2 + 6 * d2 * cells.w2 + 4 * d * cells.w3 + cells.w4).sum()
    return Moments(n, cells.origin + mean, float(m2), float(m3), float(m4))


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


def shape_error(cells: Distribution, total: Moments) -> float:
    """Bound of the error of skewness and kurtosis that comes from unknown w3 and w4.

    Inside a cell of width h, |w3| <= h w2 and 0 <= w4 <= h^2 w2.

    Returns:
        the larger of the two absolute bounds; 0 where w3 and w4 are known.
    """
    if cells.known or not total.m2 > 0:
        return 0.0
    width = cells.high - cells.low
    d = np.abs(cells.offset - (total.mean - cells.origin))
    third = float((width * cells.w2).sum())
    fourth = float((width * cells.w2 * (4 * d + width)).sum())
    variance = total.m2 / total.n
    return float(max(third / total.n / variance**1.5, fourth / total.n / variance**2))
