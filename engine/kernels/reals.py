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
