"""What a learnt scalar adds to weights: s times noise that is drawn by position, or s times the weights.

Every step is one IEEE operation in float32, so the bits depend neither on the block nor on the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engine.kernels.draws import normal

_QUIET_NAN = np.uint32(0x7FC00000)


@njit(nogil=True, cache=True)
def add_gaussian(key: Any, first: Any, scale: Any, out: Any) -> None:
    """Add scale * N, N drawn as `engine.kernels.draws.gaussian` does.

    Args:
        key: uint64, of N.
        first: uint64, index of the first element.
        scale: float32.
        out: (n,) uint32, patterns of float32, added to; NaN is 0x7FC00000.
    """
    for j in range(out.size):
        drawn = np.float32(normal(key, first + np.uint64(j)))
        x = np.float32(np.uint32(out[j]).view(np.float32) + np.float32(scale * drawn))
        out[j] = np.float32(x).view(np.uint32) if x == x else _QUIET_NAN  # noqa: PLR0124 - NaN differs from itself


@njit(nogil=True, cache=True)
def add_scaled(weights: Any, scale: Any, out: Any) -> None:
    """Add scale * weights.

    Args:
        weights: (n,) float32.
        scale: float32.
        out: as for `add_gaussian`.
    """
    for j in range(out.size):
        x = np.float32(np.uint32(out[j]).view(np.float32) + np.float32(scale * weights[j]))
        out[j] = np.float32(x).view(np.uint32) if x == x else _QUIET_NAN  # noqa: PLR0124


@njit(nogil=True, cache=True)
def subtract(weights: Any, out: Any) -> None:
    """Take the weights off.

    Args:
        weights: (n,) float32.
        out: as for `add_gaussian`.
    """
    for j in range(out.size):
        x = np.float32(np.uint32(out[j]).view(np.float32) - weights[j])
        out[j] = np.float32(x).view(np.uint32) if x == x else _QUIET_NAN  # noqa: PLR0124
