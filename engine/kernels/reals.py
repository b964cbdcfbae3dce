"""Small loops over float64 arrays that numpy lacks or does less precisely."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_SQRT_HALF = math.sqrt(0.5)


@njit(nogil=True, cache=True)
def compensated_sum(terms: Any) -> Any:
    """Sum float64 terms in order with their rounding errors carried along (Neumaier 1974).

    Args:
        terms: (n,) float64.

    Returns:
        float64, the sum to about one rounding however much the terms cancel.
    """
    total = 0.0
    error = 0.0
    for i in range(terms.size):
        term = terms[i]
        new = total + term
        if abs(total) >= abs(term):
            error += (total - new) + term
        else:
            error += (term - new) + total
        total = new
    return total + error


@njit(nogil=True, cache=True)
def normal_cdf(z: Any) -> Any:
    """Cumulative distribution function of the standard normal.

    Args:
        z: (n,) float64.

    Returns:
        (n,) float64, relatively precise in the lower tail.
    """
    out = np.empty(z.size)
    for i in range(z.size):
        out[i] = 0.5 * math.erfc(-z[i] * _SQRT_HALF)
    return out


_LANES = 32


@njit(nogil=True, cache=True)
def dot(a: Any, b: Any) -> Any:
    """Inner product in float64: element j goes to partial sum j mod 32, and those are added up in order.

    Args:
        a: (n,) float32, whose products are exact, or float64.
        b: likewise.

    Returns:
        float64; a product that is not finite counts as 0.
    """
    partial = np.zeros(_LANES)
    for start in range(0, a.size, _LANES):
        left, right = a[start : start + _LANES], b[start : start + _LANES]
        for lane in range(left.size):
            product = np.float64(left[lane]) * np.float64(right[lane])
            partial[lane] += product if abs(product) < np.inf else 0.0
    total = 0.0
    for lane in range(_LANES):
        total += partial[lane]
    return total
