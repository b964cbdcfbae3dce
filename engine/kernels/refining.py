"""The second pass over 32-bit floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_16, _HALF = np.uint64(16), np.uint64(0xFFFF)


@njit(nogil=True, cache=True)
def refine32(patterns: Any, slots: Any, low_counts: Any, powers: Any) -> None:
    """Second pass over 32-bit patterns: single low halves of chosen codes, higher power sums of all.

    Args:
        patterns: (n,) uint32.
        slots: (65536,) int16, the row of `low_counts` for a code, -1 for codes that are not chosen.
        low_counts: (k, 65536) uint64, added to: how often each low half occurs.
        powers: (65536, 4) uint64, added to: sums of the cubes of the low halves as (low, high) 64-bit
            limbs, then of their fourth powers.
    """
    one = np.uint64(1)
    for i in range(patterns.size):
        word = np.uint64(patterns[i])
        low, top = word & _HALF, word >> _16
        row = slots[top]
        if row >= 0:
            low_counts[row, low] += one
        cube = low * low * low
        total = powers[top, 0] + cube
        if total < cube:
            powers[top, 1] += one
        powers[top, 0] = total
        fourth = cube * low
        total = powers[top, 2] + fourth
        if total < fourth:
            powers[top, 3] += one
        powers[top, 2] = total
