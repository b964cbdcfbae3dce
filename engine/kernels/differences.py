"""Differences of blocks of floats, ready to be counted; those of bf16 are in `cpu`, beside what counts them.

One IEEE subtraction each. What is no number becomes the quiet NaN 0x7FC00000, because the payload of a NaN
depends on the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_QUIET_NAN = np.uint32(0x7FC00000)
_STRETCH = 1024  # words between two looks at what was found


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
def same_words(tuned: Any, base: Any) -> Any:
    """Whether all words are equal, and which of their bits are set anywhere.

    Args:
        tuned: (n,) uint64.
        base: (n,) uint64.

    Returns:
        bool; uint64, the words of all that were looked at, or-ed together.
    """
    seen = np.uint64(0)
    for start in range(0, tuned.size, _STRETCH):
        differ = np.uint64(0)
        for i in range(start, min(start + _STRETCH, tuned.size)):
            differ |= tuned[i] ^ base[i]
            seen |= tuned[i]
        if differ:
            return False, seen
    return True, seen


@njit(nogil=True, cache=True)
def are_finite(patterns: Any, infinity: Any) -> Any:
    """Whether none of (n,) unsigned patterns is infinite or NaN.

    Args:
        patterns: (n,).
        infinity: the pattern of +infinity, all of whose bits are the exponent's.

    Returns:
        bool.
    """
    beyond = False
    for i in range(patterns.size):
        beyond |= (patterns[i] & infinity) == infinity
    return not beyond
