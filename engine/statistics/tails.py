"""Limits that chance keeps to: of a normal, of a beta variable, and of the mean of some elements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

NORMAL = NormalDist()
_EXACT = 100.0  # a beta's first parameter up to which the series is used
_HALVINGS = 60
_OF_LOGARITHMS = 34  # to eight digits
_STEPS = 8  # bins of squares to a doubling: narrow beside the spread of a mean of several


def beta_quantile(p: float, a: float, b: float) -> float:
    """Quantile of a beta variable with a <= b, to about 1e-4 of its standard deviation.

    Source: for small a Wise's approximation (Biometrika 37, 1950, p. 208) by an incomplete gamma function,
        for large a Paulson's of the F distribution by the cube root (Annals of Mathematical Statistics 13,
        1942).

    Args:
        p: in (0, 1).
        a: positive, half a whole number.
        b: likewise.
    """
    if a <= _EXACT:
        return -math.expm1(-gamma_quantile(p, a) / (b + (a - 1) / 2))
    z, u, v = NORMAL.inv_cdf(p), 1 / (9 * a), 1 / (9 * b)
    one, two = 1 - u, 1 - v
    root = math.sqrt(two * two * u + one * one * v - u * v * z * z)
    cube = (one * two + z * root) / (two * two - v * z * z)
    ratio = a / b * max(cube, 0.0) ** 3
    return ratio / (1 + ratio)


def gamma_quantile(p: float, shape: float) -> float:
    """Quantile of a gamma variable of scale 1, by halving; `shape` is at most some hundreds."""
    low, high = 0.0, shape + 10 * math.sqrt(shape) + 30
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _gamma_cdf(middle, shape) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _gamma_cdf(x: float, shape: float) -> float:
    """Regularised lower incomplete gamma function, by its series (DLMF 8.11.4)."""
    if x <= 0:
        return 0.0
    term = total = 1.0
    k = shape
    while term > total * 1e-14:
        k += 1
        term *= x / k
        total += term
    return min(1.0, math.exp(shape * math.log(x) - x - math.lgamma(shape + 1)) * total)


@dataclass(frozen=True, slots=True)
class Squares:
    """The squared distances of all elements from their mean, in units of their own mean.

    Attributes:
        value: (k,) float64, the mean of each bin; bins are an eighth of a doubling wide.
        share: (k,) float64, of the elements.
    """

    value: F64
    share: F64


def squares(of: F64, n: F64) -> Squares:
    """Gather values that are not negative, of which each occurs so often, into bins."""
    mean = float((of * n).sum() / n.sum())
    relative = of / mean
    keys = np.floor(_STEPS * np.log2(np.maximum(relative, 2.0**-20))).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] - 1))
    count = np.add.reduceat(n[order], first)
    return Squares(np.add.reduceat((relative * n)[order], first) / count, count / count.sum())


def mean_limit(of: Squares, size: int, p: float, *, upper: bool) -> float:
    """What the mean of some elements, drawn by chance, exceeds (or falls short of) with a small probability.

    The saddlepoint approximation of the tail of a mean, with r* = w + ln(u / w) / w: exact for a Gaussian's
    squares but for a factor near 1, and right where few large elements carry the tail, as a normal or gamma
    limit is not.

    Source: Lugannani and Rice, Advances in Applied Probability 12 (1980); Barndorff-Nielsen, Biometrika 73
        (1986).

    Args:
        of: what is drawn from.
        size: how many are drawn.
        p: the probability, below a half.
        upper: whether the upper tail is meant.

    Returns:
        in units of the mean of all.
    """
    low, high, sign = 1e-6, 1e6, 1 if upper else -1
    for _ in range(_OF_LOGARITHMS):
        middle = math.sqrt(low * high)
        if _tail(of, size, sign * middle)[0] > p:
            low = middle
        else:
            high = middle
    return _tail(of, size, sign * high)[1]


def _tail(of: Squares, size: int, t: float) -> tuple[float, float]:
    """Probability of the tail beyond the mean that a tilt by exp(t x) makes, and that mean."""
    exponent = t * of.value
    most = float(exponent.max())
    weight = of.share * np.exp(exponent - most)
    total = float(weight.sum())
    mean = float((weight * of.value).sum()) / total
    variance = float((weight * (of.value - mean) ** 2).sum()) / total
    w = math.sqrt(max(2 * size * (t * mean - most - math.log(total)), 0.0))
    u = abs(t) * math.sqrt(size * variance)
    if not (w > 0 and u > 0):
        return (0.5 if abs(t) < 1 else 0.0), mean
    return 0.5 * math.erfc((w + math.log(u / w) / w) / math.sqrt(2)), mean
