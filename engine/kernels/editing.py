"""Loops that keep some elements of a tensor, by an interval: from patterns to patterns, and counted.

The values are what is compared; the patterns, of the same elements, are what is kept, so that nothing that is
kept changes a bit. NaN lies in no interval. Masks in place of conditions, and counts of 32 bits for a strip
at a time, let the compiler work on several elements at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engine.kernels.floats import value

STRIP = 4096
"""Elements between two looks at the count."""


@njit(nogil=True, cache=True)
def keep(values: Any, patterns: Any, low: Any, high: Any, inside: Any, out: Any) -> Any:
    """Keep what lies in [low, high], or what does not; the rest is +0.

    Args:
        values: (n,) uint16 (bf16), int16 (f16) or float32.
        patterns: (n,) unsigned integers, the same elements.
        low: float32.
        high: float32.
        inside: whether what lies in the interval is kept.
        out: (n,) unsigned integers.

    Returns:
        how many were kept.
    """
    total = 0
    flip = np.uint32(0 if inside else 1)
    for first in range(0, out.size, STRIP):
        stop = min(first + STRIP, out.size)
        total += _keep(values[first:stop], patterns[first:stop], low, high, flip, out[first:stop])
    return total


@njit(nogil=True, cache=True)
def _keep(values: Any, patterns: Any, low: Any, high: Any, flip: Any, out: Any) -> Any:
    kept = np.uint32(0)
    for j in range(out.size):
        x = value(values[j])
        wanted = np.uint32((x >= low) & (x <= high)) ^ flip
        out[j] = patterns[j] & -wanted
        kept = np.uint32(kept + wanted)
    return kept


@njit(nogil=True, cache=True)
def keep_changes(
    values: Any, patterns: Any, base: Any, instead: Any, low: Any, high: Any, inside: Any, out: Any
) -> Any:
    """Keep what differs from a base by something in [low, high], or by something else; the rest is the base.

    Args:
        values: (n,) uint16 (bf16), int16 (f16) or float32.
        patterns: (n,) unsigned integers, the same elements.
        base: (n,) uint16, int16 or float32; values - base is one float32 operation.
        instead: (n,) unsigned integers, the base's elements as `out` stores them.
        low: float32.
        high: float32.
        inside: whether what lies in the interval is kept.
        out: (n,) unsigned integers.

    Returns:
        how many were kept.
    """
    total = 0
    flip = np.uint32(0 if inside else 1)
    for first in range(0, out.size, STRIP):
        stop = min(first + STRIP, out.size)
        own, its = values[first:stop], base[first:stop]
        choice, merged = (patterns[first:stop], instead[first:stop]), out[first:stop]
        total += _keep_changes(own, its, choice, low, high, flip, merged)
    return total


@njit(nogil=True, cache=True)
def _keep_changes(values: Any, base: Any, choice: Any, low: Any, high: Any, flip: Any, out: Any) -> Any:
    patterns, instead = choice
    kept = np.uint32(0)
    for j in range(out.size):
        x = np.float32(value(values[j]) - value(base[j]))
        wanted = np.uint32((x >= low) & (x <= high)) ^ flip
        out[j] = instead[j] ^ ((instead[j] ^ patterns[j]) & -wanted)
        kept = np.uint32(kept + wanted)
    return kept
