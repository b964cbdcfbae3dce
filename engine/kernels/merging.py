"""Merging loops: from the patterns of a base and n models to those of the merged tensor, in one go.

    out = round(W + (f(W_1 - W) + f(W_2 - W) + ... + f(W_n - W)))

Every operation is one IEEE float32 operation, and the sum goes from left to right, as on a GPU
(`engine.kernels.cuda.merging`). `round` is that of `floats`. Of more than two models, a strip of elements,
with what was added up so far, stays in the first-level cache while they come one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engine.kernels.floats import put, value

STRIP = 2048
"""Elements worked on at once: two strips of float32 take 16 KiB."""


@njit(nogil=True, cache=True, error_model="numpy")
def weighted(base: Any, models: Any, factors: Any, out: Any) -> None:
    """Merge with f(d) = d * factor of the model.

    Args:
        base: (m,) uint16 (bf16), int16 (f16) or float32.
        models: a tuple of n arrays like that, all of one dtype; n >= 1.
        factors: (n,) float32.
        out: (m,) uint16, int16 or float32.
    """
    if len(models) == 2:
        _weighted_pair(base, models[0], models[1], factors, out)
        return
    start, total = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    last = len(models) - 1
    for first in range(0, out.size, STRIP):
        stop = min(first + STRIP, out.size)
        strip, merged = base[first:stop], out[first:stop]
        if last == 0:
            _one_weighted(strip, models[0][first:stop], factors[0], merged)
            continue
        _first_weighted(strip, models[0][first:stop], factors[0], start, total)
        for k in range(1, last):
            _next_weighted(models[k][first:stop], factors[k], start, total)
        _last_weighted(models[last][first:stop], factors[last], start, total, merged)


@njit(nogil=True, cache=True, error_model="numpy")
def _weighted_pair(base: Any, model: Any, other: Any, factors: Any, out: Any) -> None:
    """The same of two models, with every step of an element in registers."""
    factor, second = factors[0], factors[1]
    for j in range(out.size):
        b = value(base[j])
        total = (value(model[j]) - b) * factor
        total += (value(other[j]) - b) * second
        put(out, j, b + total)


@njit(nogil=True, cache=True, error_model="numpy")
def _one_weighted(base: Any, model: Any, factor: Any, out: Any) -> None:
    for j in range(out.size):
        b = value(base[j])
        put(out, j, b + (value(model[j]) - b) * factor)


@njit(nogil=True, cache=True, error_model="numpy")
def _first_weighted(base: Any, model: Any, factor: Any, start: Any, total: Any) -> None:
    for j in range(base.size):
        b = value(base[j])
        start[j] = b
        total[j] = (value(model[j]) - b) * factor


@njit(nogil=True, cache=True, error_model="numpy")
def _next_weighted(model: Any, factor: Any, start: Any, total: Any) -> None:
    for j in range(model.size):
        total[j] += (value(model[j]) - start[j]) * factor


@njit(nogil=True, cache=True, error_model="numpy")
def _last_weighted(model: Any, factor: Any, start: Any, total: Any, out: Any) -> None:
    for j in range(out.size):
        b = start[j]
        put(out, j, b + (total[j] + (value(model[j]) - b) * factor))


@njit(nogil=True, cache=True, error_model="numpy")
def outliers(base: Any, models: Any, limit: Any, out: Any) -> None:
    """Merge with f(d) = d / n where |d| <= limit, and d elsewhere.

    Args:
        base: as for `weighted`.
        models: likewise.
        limit: float32.
        out: as for `weighted`.
    """
    if len(models) == 2:
        _outliers_pair(base, models[0], models[1], limit, out)
        return
    start, total = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    count, last = len(models), len(models) - 1
    halves = count & last == 0  # multiplying by a power of two rounds like dividing, and is faster
    share = np.float32(1 / count) if halves else np.float32(count)
    for first in range(0, out.size, STRIP):
        stop = min(first + STRIP, out.size)
        strip, merged = base[first:stop], out[first:stop]
        if last == 0:
            _one_weighted(strip, models[0][first:stop], np.float32(1), merged)
            continue
        _first_outliers(strip, models[0][first:stop], limit, halves, share, start, total)
        for k in range(1, last):
            _next_outliers(models[k][first:stop], limit, halves, share, start, total)
        _last_outliers(models[last][first:stop], limit, halves, share, start, total, merged)


@njit(nogil=True, cache=True, error_model="numpy")
def _outliers_pair(base: Any, model: Any, other: Any, limit: Any, out: Any) -> None:
    """The same of two models, with every step of an element in registers."""
    half = np.float32(0.5)
    for j in range(out.size):
        b = value(base[j])
        d, e = value(model[j]) - b, value(other[j]) - b
        total = d * half if abs(d) <= limit else d
        total += e * half if abs(e) <= limit else e
        put(out, j, b + total)


@njit(nogil=True, cache=True, error_model="numpy")
def _shared(d: Any, limit: Any, halves: Any, share: Any) -> Any:
    divided = d * share if halves else d / share
    return divided if abs(d) <= limit else d


@njit(nogil=True, cache=True, error_model="numpy")
def _first_outliers(
    base: Any, model: Any, limit: Any, halves: Any, share: Any, start: Any, total: Any
) -> None:
    for j in range(base.size):
        b = value(base[j])
        start[j] = b
        total[j] = _shared(value(model[j]) - b, limit, halves, share)


@njit(nogil=True, cache=True, error_model="numpy")
def _next_outliers(model: Any, limit: Any, halves: Any, share: Any, start: Any, total: Any) -> None:
    for j in range(model.size):
        total[j] += _shared(value(model[j]) - start[j], limit, halves, share)


@njit(nogil=True, cache=True, error_model="numpy")
def _last_outliers(model: Any, limit: Any, halves: Any, share: Any, start: Any, total: Any, out: Any) -> None:
    for j in range(out.size):
        b = start[j]
        put(out, j, b + (total[j] + _shared(value(model[j]) - b, limit, halves, share)))
