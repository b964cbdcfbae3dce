"""Magnitudes by rank, from the counts of 32-bit floats: in which code they lie, and where in it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engine.sketch import Sketch

SIGN = 0x8000
_INFINITE = 0x7F80


def locate(sketch: Sketch, rank: int) -> tuple[int, int]:
    """Find the code of the magnitude with a rank.

    Args:
        sketch: of 32-bit floats.
        rank: from 0, the smallest; NaN is the largest.

    Returns:
        the code, without its sign, and how many smaller magnitudes have it too.

    Raises:
        ValueError: there are not so many elements.
    """
    counts = np.zeros(SIGN, np.int64)
    np.add.at(counts, sketch.codes & np.uint16(SIGN - 1), sketch.n.astype(np.int64))
    below = np.cumsum(counts)
    code = int(np.searchsorted(below, rank, side="right"))
    if code == SIGN:
        raise ValueError(f"there is no rank {rank} among {int(below[-1])} elements")
    return code, rank - int(below[code] - counts[code])


def magnitude(lows: NDArray[np.int64], code: int, rank: int) -> float:
    """The magnitude with a rank among those of a code.

    Args:
        lows: (65536,) int64, how often each low half occurs with the code, of either sign.
        code: without its sign.
        rank: as `locate` gives it.

    Returns:
        float32's value; inf for NaN, which is larger than everything.
    """
    if code >= _INFINITE:
        return math.inf
    half = int(np.searchsorted(np.cumsum(lows), rank, side="right"))
    return float(np.array([code << 16 | half], np.uint32).view(np.float32)[0])
