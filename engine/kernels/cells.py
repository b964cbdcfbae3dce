"""Loops over the cells of a distribution: sums whose rounding errors are carried along (Neumaier 1974).

A tensor has thousands of cells and a checkpoint hundreds of tensors, so that numpy's many short calls, each
of which hands over Python's lock twice, would take longer than the sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_SQRT_HALF = math.sqrt(0.5)


@njit(nogil=True, cache=True)
def _add(total: Any, error: Any, term: Any) -> Any:
    new = total + term
    if abs(total) >= abs(term):
        return new, error + ((total - new) + term)
    return new, error + ((term - new) + total)


@njit(nogil=True, cache=True)
def central_sums(n: Any, offset: Any, w2: Any, w3: Any, w4: Any, ranges: Any) -> Any:
    """Count, mean and central sums of the cells in some ranges.

    Args:
        n: (k,) float64, elements of each cell.
        offset: (k,) float64, their mean.
        w2: (k,) float64, sums of the squares of their distances from it.
        w3: (k,) float64, of the third powers.
        w4: (k,) float64, of the fourth powers.
        ranges: (r, 2) int64, first cell and the one behind the last; none overlap.

    Returns:
        (5,) float64: count, mean, and sums of the second to fourth powers about it; the mean of none is 0.
    """
    count, first, error = 0.0, 0.0, 0.0
    for r in range(ranges.shape[0]):
        for i in range(ranges[r, 0], ranges[r, 1]):
            count += n[i]
            first, error = _add(first, error, n[i] * offset[i])
    mean = (first + error) / count if count > 0 else 0.0
    m2, m3, m4, error2, error3, error4 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(ranges.shape[0]):
        for i in range(ranges[r, 0], ranges[r, 1]):
            d = offset[i] - mean
            d2 = d * d
            m2, error2 = _add(m2, error2, n[i] * d2 + w2[i])
            m3, error3 = _add(m3, error3, n[i] * d2 * d + 3 * d * w2[i] + w3[i])
            m4, error4 = _add(m4, error4, n[i] * d2 * d2 + 6 * d2 * w2[i] + 4 * d * w3[i] + w4[i])
    out = np.empty(5)
    out[0], out[1], out[2], out[3], out[4] = count, mean, m2 + error2, m3 + error3, m4 + error4
    return out


@njit(nogil=True, cache=True)
def width_sums(low: Any, high: Any, offset: Any, w2: Any, mean: Any, ranges: Any) -> Any:
    """Sums of h w2 and of h w2 (4 |d| + h), h the width of a cell and d its distance from the mean.

    Args:
        low: (k,) float64, where each cell begins.
        high: (k,) float64, where it ends.
        offset: as for `central_sums`.
        w2: likewise.
        mean: from which distances are taken.
        ranges: as for `central_sums`.

    Returns:
        both sums, float64.
    """
    third, fourth = 0.0, 0.0
    for r in range(ranges.shape[0]):
        for i in range(ranges[r, 0], ranges[r, 1]):
            width = high[i] - low[i]
            third += width * w2[i]
            fourth += width * w2[i] * (4 * abs(offset[i] - mean) + width)
    return third, fourth


@njit(nogil=True, cache=True)
def entropy(n: Any, value: Any, one_zero: bool) -> Any:
    """Shannon entropy in bits of the counts of finite values.

    Args:
        n: (k,) uint64, elements of each.
        value: (k,) float64.
        one_zero: whether the two zeros are one symbol.

    Returns:
        float64, NaN of nothing.
    """
    count, zeros = 0.0, 0.0
    for i in range(n.size):
        if math.isfinite(value[i]):
            count += n[i]
            zeros += n[i] if one_zero and value[i] == 0 else 0.0
    if not count > 0:
        return math.nan
    total, error = 0.0, 0.0
    for i in range(n.size):
        if n[i] > 0 and math.isfinite(value[i]) and not (one_zero and value[i] == 0):
            p = n[i] / count
            total, error = _add(total, error, -p * math.log2(p))
    if zeros > 0:
        total, error = _add(total, error, -zeros / count * math.log2(zeros / count))
    return total + error + 0.0


@njit(nogil=True, cache=True)
def _tail(z: Any) -> Any:
    """Probability beyond |z|, on one side."""
    return 0.5 * math.erfc(abs(z) * _SQRT_HALF)


@njit(nogil=True, cache=True)
def _cdf(z: Any) -> Any:
    return 0.5 * math.erfc(-z * _SQRT_HALF)


@njit(nogil=True, cache=True)
def gaussian_entropy(edges: Any, mean: Any, std: Any) -> Any:
    """Entropy in bits of the cells between edges, as a Gaussian fills them.

    Args:
        edges: (k + 1,) float64, increasing.
        mean: of the Gaussian.
        std: of the Gaussian, positive.

    Returns:
        float64, the sum of -p log2(p) over the cells.
    """
    total, error = 0.0, 0.0
    before = (edges[0] - mean) / std
    beyond = _tail(before)
    for i in range(1, edges.size):
        z = (edges[i] - mean) / std
        tail = _tail(z)
        if before > 0:
            p = beyond - tail
        elif z > 0:
            p = (1.0 - tail) - beyond
        else:
            p = tail - beyond
        if p > 0:
            total, error = _add(total, error, -p * math.log2(p))
        before, beyond = z, tail
    return total + error


@njit(nogil=True, cache=True)
def distance_to_normal(low: Any, high: Any, n: Any, mean: Any, std: Any) -> Any:
    """Kolmogorov-Smirnov distance of cells to a Gaussian, at the edges of the cells.

    Args:
        low: (k,) float64, where each cell begins, increasing.
        high: (k,) float64, where it ends; cells that touch are one.
        n: (k,) float64, elements of each.
        mean: of the Gaussian.
        std: of the Gaussian, positive.

    Returns:
        float64 in [0, 1].
    """
    count = n.sum()
    worst, upto, i = 0.0, 0.0, 0
    while i < n.size:
        here = _cdf((low[i] - mean) / std)
        worst = max(worst, here - upto / count)
        begin = low[i]
        upto += n[i]
        while i + 1 < n.size and low[i + 1] <= high[i]:
            i += 1
            upto += n[i]
        if high[i] != begin:
            here = _cdf((high[i] - mean) / std)
        worst = max(worst, upto / count - here)
        i += 1
    return worst
