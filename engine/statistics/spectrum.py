"""Singular values of a matrix against those of noise: the Marchenko-Pastur law, and the edge of its bulk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

_STRIP = 1 << 20  # elements that are widened to float64 at once
_TRACY_WIDOM = 0.9793  # 95 % quantile for real matrices: Johnstone (2001), table 1
_DIGITS = 9  # kept: those beyond depend on how many threads the linear algebra has


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Squared singular values of a matrix less its mean, in units of what noise of its sigma has.

    Attributes:
        values: how many there are; 0 if elements are no numbers, or all equal.
        distance: Kolmogorov distance to the Marchenko-Pastur law.
        limit: it is below in 95 % of cases, for noise.
        beyond: how many are beyond the edge; for noise none in 95 % of cases.
        ratio: the largest singular value / the edge.
    """

    values: int = 0
    distance: float = math.nan
    limit: float = math.nan
    beyond: int | None = None
    ratio: float = math.nan


def spectrum(matrix: NDArray[np.float32]) -> Spectrum:
    """Compare the singular values of a matrix with those of noise.

    Numbers are rounded to nine digits, so that they do not depend on the number of threads.

    Args:
        matrix: (rows, columns) float32, both at least 16; beside it, twice the square of the
            smaller side is taken as float64.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    n, m = wide.shape
    mean = float(matrix.mean(dtype=np.float64)) if np.isfinite(matrix).all() else math.nan
    if math.isnan(mean):
        return Spectrum()
    gram = np.zeros((n, n))
    step = max(1, _STRIP // n)
    for start in range(0, m, step):
        strip = wide[:, start : start + step].astype(np.float64) - mean
        gram += strip @ strip.T
    variance = float(np.trace(gram)) / (n * m)
    if not variance > np.finfo(np.float64).eps * mean * mean:
        return Spectrum()
    return compare_spectrum(np.maximum(np.linalg.eigvalsh(gram), 0.0) / variance, n, m)


def compare_spectrum(squares: F64, n: int, m: int) -> Spectrum:
    """Compare squared singular values with those of noise of sigma 1.

    The edge is Johnstone's (Annals of Statistics 29, 2001), with Ma's centre and scale (Bernoulli 18, 2012).
    It lies a little lower for small sides, because sigma is that of the matrix itself: by (4 + 6 n / m) / n
    units, which fits 120 to 3,000 draws of each of about 60 shapes, as does the limit of the distance.

    Args:
        squares: (n,) float64, increasing, of mean m.
        n: the smaller side.
        m: the larger side.
    """
    upto = marchenko_pastur(squares / m, n / m)
    ranks = np.arange(n)
    distance = max(float((upto - ranks / n).max()), float(((ranks + 1) / n - upto).max()))
    limit = (0.885 + 0.29 * math.log2(n) - 0.08 * (1 - math.sqrt(n / m))) / n
    centre = math.sqrt(m - 0.5) + math.sqrt(n - 0.5)
    scale = centre * (1 / math.sqrt(m - 0.5) + 1 / math.sqrt(n - 0.5)) ** (1 / 3)
    edge = centre**2 + scale * (_TRACY_WIDOM - (4 + 6 * n / m) / n)
    beyond = int(np.count_nonzero(squares > edge * (1 + 1e-9)))
    return Spectrum(n, _rounded(distance), limit, beyond, _rounded(math.sqrt(squares[-1] / edge)))


def marchenko_pastur(x: F64, ratio: float) -> F64:
    """Distribution function of the Marchenko-Pastur law of variance 1.

    Source: Marchenko and Pastur, Mathematics of the USSR-Sbornik 1 (1967); its integral in closed form.

    Args:
        x: (k,) float64.
        ratio: smaller side / larger side, in (0, 1].

    Returns:
        (k,) float64 in [0, 1].
    """
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    found = (x >= high).astype(np.float64)
    inside = (x > low) & (x < high)
    y = x[inside]
    r = np.sqrt((high - y) / (y - low))
    total = math.pi * ratio + np.sqrt((high - y) * (y - low)) - (1 + ratio) * np.arctan((r * r - 1) / (2 * r))
    if ratio < 1:
        total += (1 - ratio) * np.arctan((low * r * r - high) / (2 * (1 - ratio) * r))
    found[inside] = np.clip(total / (2 * math.pi * ratio), 0.0, 1.0)
    return found


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
