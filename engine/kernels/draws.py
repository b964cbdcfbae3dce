"""Random numbers by position: the number of an element depends on its key and its index, and on nothing else.

SplitMix64 (Steele, Lea, Flood 2014) read at an index instead of in turn: its state is a counter, so element i
of a stream is `mix(key + (i + 1) * golden)`. It passes BigCrush.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_STEP = 2.0**-53


@njit(nogil=True, cache=True)
def bits(key: Any, index: Any) -> Any:
    """Draw 53 bits.

    Args:
        key: uint64, of the stream.
        index: uint64, of the element.

    Returns:
        uint64 below 2**53.
    """
    z = key + (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return (z ^ (z >> _31)) >> _11


@njit(nogil=True, cache=True)
def uniform(key: Any, first: Any, out: Any) -> None:
    """Draw numbers from [0, 1), evenly spaced by 2**-53.

    Args:
        key: uint64, of the stream.
        first: uint64, index of the first element.
        out: (n,) float64.
    """
    for j in range(out.size):
        out[j] = np.float64(bits(key, first + np.uint64(j))) * _STEP
