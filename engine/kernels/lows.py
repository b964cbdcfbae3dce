"""Counting the low halves of the magnitudes that have one of two codes: where a rank lies, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LOW = np.uint32(0xFFFF)
_SIXTEEN = np.uint32(16)


@njit(nogil=True, cache=True)
def count_lows(patterns: Any, first: Any, second: Any, lows: Any) -> None:
    """Count the low halves of float32 patterns whose magnitude has one of two codes.

    Args:
        patterns: (n,) uint32.
        first: uint32, the upper half of a magnitude.
        second: likewise; may be the same, and then only the first is counted.
        lows: (2, 65536) int64, added to.
    """
    for i in range(patterns.size):
        size = patterns[i] & _MAGNITUDE
        code = size >> _SIXTEEN
        if code == first:
            lows[0, size & _LOW] += 1
        elif code == second:
            lows[1, size & _LOW] += 1


@njit(nogil=True, cache=True)
def count_bf16_lows(tuned: Any, base: Any, first: Any, second: Any, room: Any, lows: Any) -> None:
    """The same of the differences tuned - base in float32; a NaN counts as any NaN would.

    Args:
        tuned: (n,) uint16, bf16 patterns.
        base: likewise.
        first: as for `count_lows`.
        second: likewise.
        room: (2, m) uint32, for the magnitudes of a stretch, which stay in the first-level cache.
        lows: as for `count_lows`.
    """
    sizes, found = room[0], room[1]
    for start in range(0, tuned.size, sizes.size):
        stop = min(start + sizes.size, tuned.size)
        _subtract(tuned[start:stop], base[start:stop], sizes)
        kept = 0
        for i in range(stop - start):  # without a branch: each is put behind those that were found
            code = sizes[i] >> _SIXTEEN
            found[kept] = sizes[i]
            kept += (code == first) | (code == second)
        for i in range(kept):
            lows[0 if found[i] >> _SIXTEEN == first else 1, found[i] & _LOW] += 1


@njit(nogil=True, cache=True)
def _subtract(tuned: Any, base: Any, sizes: Any) -> None:
    """The magnitudes of tuned - base, which for this purpose need no one NaN; compiled to vectors."""
    for i in range(tuned.size):
        a = np.uint32(np.uint32(tuned[i]) << _SIXTEEN).view(np.float32)
        b = np.uint32(np.uint32(base[i]) << _SIXTEEN).view(np.float32)
        sizes[i] = np.float32(a - b).view(np.uint32) & _MAGNITUDE
