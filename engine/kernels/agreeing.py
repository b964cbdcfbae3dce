"""Merging loops in which an element of a task vector is dropped or kept, and in which models agree on a sign.

As in `merging`, from patterns to patterns, each step one IEEE float32 operation:

    part_k = (W_k - W) * (factor_k if the element is kept else 0)
    out = round(W + (part_1 + part_2 + ... + part_n))               or only those parts that agree

What is not finite is not dropped: infinity times 0 is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engine.kernels.draws import bits
from engine.kernels.floats import put, value

STRIP = 1024
"""Elements worked on at once: the parts of three models, and what is made of them, take 28 KiB."""
_LEAST_DIVISOR = np.nextafter(np.float32(1e-8), np.float32(1))  # the first float32 that is not below 1e-8


@njit(nogil=True, cache=True, error_model="numpy")
def trimmed(
    base: Any,
    models: Any,
    factors: Any,
    bands: Any,
    weights: Any,
    scale: Any,
    elect: Any,
    normalize: Any,
    out: Any,
) -> None:
    """Merge what lies in a band of magnitudes.

    Args:
        base: (m,) uint16 (bf16), int16 (f16) or float32.
        models: a tuple of n arrays like that, all of one dtype; n >= 1.
        factors: (n,) float32.
        bands: (n, 2) float32, the least and the largest magnitude that is kept.
        weights: (n,) float32; see `agree`.
        scale: float32; see `agree`.
        elect: whether only parts that agree count; if not, weights, scale and normalize say nothing.
        normalize: see `agree`.
        out: (m,) uint16, int16 or float32.
    """
    if elect and len(models) == 2:
        _trimmed_pair(base, models[0], models[1], factors, bands, weights, scale, normalize, out)
        return
    size = min(STRIP, out.size)
    parts, start, total = _room(len(models), size)
    for first in range(0, out.size, STRIP):
        if out.size - first < size:
            size = out.size - first
            parts, start, total = _room(len(models), size)
        _widen(base[first : first + size], start)
        for k in range(len(models)):
            model = models[k][first : first + size]
            _trim(model, start, factors[k], bands[k, 0], bands[k, 1], parts[k])
        _put_together(parts, weights, scale, elect, normalize, start, total, out[first : first + size])


@njit(nogil=True, cache=True, error_model="numpy")
def dropped(
    base: Any,
    models: Any,
    factors: Any,
    keys: Any,
    limits: Any,
    index: Any,
    weights: Any,
    scale: Any,
    elect: Any,
    normalize: Any,
    out: Any,
) -> None:
    """Merge what a draw keeps.

    Args:
        base: as for `trimmed`.
        models: likewise.
        factors: (n,) float32.
        keys: (n,) uint64, of each model's stream; see `engine.kernels.draws`.
        limits: (n,) uint64, how many of 2**53 draws keep an element: those below.
        index: uint64, of the first element.
        weights: as for `trimmed`.
        scale: likewise.
        elect: likewise.
        normalize: likewise.
        out: likewise.
    """
    size = min(STRIP, out.size)
    parts, start, total = _room(len(models), size)
    for first in range(0, out.size, STRIP):
        if out.size - first < size:
            size = out.size - first
            parts, start, total = _room(len(models), size)
        _widen(base[first : first + size], start)
        at = index + np.uint64(first)
        for k in range(len(models)):
            model = models[k][first : first + size]
            _drop(model, start, factors[k], keys[k], limits[k], at, parts[k])
        _put_together(parts, weights, scale, elect, normalize, start, total, out[first : first + size])


@njit(nogil=True, cache=True, error_model="numpy")
def agree(parts: Any, weights: Any, scale: Any, normalize: Any, total: Any) -> None:
    """Add up weighted task vectors, each element over the models that agree on its sign.

    The elected sign is that of the sum over all models, + if that is 0; a part of the other sign or equal to
    0 does not agree. Where the sum is no number, all agree.

    Args:
        parts: (n, m) float32 or float64.
        weights: (n,) likewise, the sum of which over the models that agree `normalize` divides by, unless it
            is closer to 0 than 1e-8.
        scale: a number likewise that multiplies what comes out.
        normalize: whether to divide before that.
        total: (m,) likewise, overwritten.
    """
    elected, divisor = np.empty_like(total), np.zeros_like(total)
    _add_up(parts, elected)
    total[:] = 0
    for k in range(parts.shape[0]):
        _add_agreeing(parts[k], weights[k], elected, total, divisor)
    for j in range(total.size):
        divided = normalize and abs(divisor[j]) >= 1e-8
        total[j] = total[j] / divisor[j] * scale if divided else total[j] * scale


@njit(nogil=True, cache=True, error_model="numpy")
def _trimmed_pair(
    base: Any,
    model: Any,
    other: Any,
    factors: Any,
    bands: Any,
    weights: Any,
    scale: Any,
    normalize: Any,
    out: Any,
) -> None:
    """The same of two models, with every step of an element in registers: in less than half of the time."""
    nothing, one = np.float32(0), np.float32(1)
    f, g, w, v = factors[0], factors[1], weights[0], weights[1]
    low, high, low_other, high_other = bands[0, 0], bands[0, 1], bands[1, 0], bands[1, 1]
    for j in range(out.size):
        b = value(base[j])
        d, e = value(model[j]) - b, value(other[j]) - b
        p = d * (nothing if (abs(d) < low) | (abs(d) > high) else f)
        q = e * (nothing if (abs(e) < low_other) | (abs(e) > high_other) else g)
        elected = p + q
        p_is_against = (p == 0) | ((p < 0) & (elected >= 0)) | ((p > 0) & (elected < 0))
        q_is_against = (q == 0) | ((q < 0) & (elected >= 0)) | ((q > 0) & (elected < 0))
        total = nothing if p_is_against else nothing + p
        total = total if q_is_against else total + q
        if normalize:
            divisor = nothing if p_is_against else w
            divisor = divisor if q_is_against else divisor + v
            total /= divisor if abs(divisor) >= _LEAST_DIVISOR else one
        put(out, j, b + total * scale)


@njit(nogil=True, cache=True)
def _room(models: Any, size: Any) -> Any:
    return np.empty((models, size), np.float32), np.empty(size, np.float32), np.empty(size, np.float32)


@njit(nogil=True, cache=True)
def _widen(data: Any, start: Any) -> None:
    for j in range(start.size):
        start[j] = value(data[j])


@njit(nogil=True, cache=True, error_model="numpy")
def _trim(model: Any, start: Any, factor: Any, low: Any, high: Any, part: Any) -> None:
    for j in range(part.size):
        d = value(model[j]) - start[j]
        beyond = (abs(d) < low) | (abs(d) > high)
        part[j] = d * (np.float32(0) if beyond else factor)


@njit(nogil=True, cache=True, error_model="numpy")
def _drop(model: Any, start: Any, factor: Any, key: Any, limit: Any, index: Any, part: Any) -> None:
    for j in range(part.size):
        kept = bits(key, index + np.uint64(j)) < limit
        part[j] = (value(model[j]) - start[j]) * (factor if kept else np.float32(0))


@njit(nogil=True, cache=True, error_model="numpy")
def _put_together(
    parts: Any, weights: Any, scale: Any, elect: Any, normalize: Any, start: Any, total: Any, out: Any
) -> None:
    if elect:
        agree(parts, weights, scale, normalize, total)
    else:
        _add_up(parts, total)
    for j in range(out.size):
        put(out, j, start[j] + total[j])


@njit(nogil=True, cache=True, error_model="numpy")
def _add_up(parts: Any, total: Any) -> None:
    total[:] = parts[0]
    for k in range(1, parts.shape[0]):
        part = parts[k]
        for j in range(total.size):
            total[j] += part[j]


@njit(nogil=True, cache=True, error_model="numpy")
def _add_agreeing(part: Any, weight: Any, elected: Any, total: Any, divisor: Any) -> None:
    for j in range(total.size):
        p = part[j]
        against = (p == 0) | ((p < 0) & (elected[j] >= 0)) | ((p > 0) & (elected[j] < 0))
        total[j] = total[j] if against else total[j] + p
        divisor[j] = divisor[j] if against else divisor[j] + weight
