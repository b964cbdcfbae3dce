"""An inner product that does not depend on the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

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
