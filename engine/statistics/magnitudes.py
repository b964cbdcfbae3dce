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
    negative = int(np.searchsorted(sketch.codes, np.uint16(SIGN)))
    counts[sketch.codes[:negative]] = sketch.n[:negative]
    counts[sketch.codes[negative:] - np.uint16(SIGN)] += sketch.n[negative:].astype(np.int64)
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
    return from_halves(code, int(np.searchsorted(np.cumsum(lows), rank, side="right")))


def from_halves(code: int, low: int) -> float:
    """The float32 with an upper half and a lower one."""
    return float(np.array([code << 16 | low], np.uint32).view(np.float32)[0])


def number_of(sketch: Sketch, code: int) -> int:
    """How many elements of a sketch of 32-bit floats have a magnitude's code."""
    return int(sketch.n[sketch.codes & np.uint16(SIGN - 1) == code].sum())


def is_largest(sketch: Sketch, code: int, rank: int) -> bool:
    """Whether a magnitude that `locate` found is the largest, and finite.

    Args:
        sketch: of 32-bit floats.
        code: of the magnitude.
        rank: among those of the code.
    """
    last = int((sketch.codes & np.uint16(SIGN - 1)).max())
    return code < _INFINITE and code == last and rank == number_of(sketch, code) - 1


def largest(sketch: Sketch) -> float:
    """The largest finite magnitude; not of a sketch without finite elements."""
    return max(-sketch.minimum, sketch.maximum)
