"""Differences of blocks of floats, ready to be counted; those of bf16 are in `cpu`, beside what counts them.

One IEEE subtraction each. What is no number becomes the quiet NaN 0x7FC00000, because the payload of a NaN
depends on the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_QUIET_NAN = np.uint32(0x7FC00000)
_STRETCH = 4096  # elements between two looks at what was found


@njit(nogil=True, cache=True)
def subtract_f32(tuned: Any, base: Any, out: Any) -> None:
    """Subtract float32.

    Args:
        tuned: (n,) float32.
        base: (n,) float32.
        out: (n,) uint32, the patterns of tuned - base.
    """
    for i in range(out.size):
        d = np.float32(tuned[i] - base[i])
        out[i] = np.float32(d).view(np.uint32) if d == d else _QUIET_NAN  # noqa: PLR0124


@njit(nogil=True, cache=True)
def are_same_and_finite(tuned: Any, base: Any, infinity: Any) -> Any:
    """Whether all elements are equal pattern by pattern, and all finite, so that their differences are +0.

    Args:
        tuned: (n,) unsigned patterns.
        base: (n,) likewise.
        infinity: the pattern of +infinity, all of whose bits are the exponent's.

    Returns:
        bool.
    """
    for start in range(0, tuned.size, _STRETCH):
        stop = min(start + _STRETCH, tuned.size)
        differ, beyond = 0, 0
        for i in range(start, stop):
            differ |= tuned[i] ^ base[i]
            beyond |= (tuned[i] & infinity) == infinity
        if differ or beyond:
            return False
    return True
