"""Edits blocks of stored elements: keeps some as they are, and puts +0, or a base's elements, for the others.

No merge methods: no configuration names them. As with those, a pure function on blocks of floats is the
definition, and a fused loop gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import editing
from engine.merge_methods.apply import OUTPUTS, Stored, round_into, widen
from engine.nouns.dtypes import Dtype
from engine.nouns.editing import Band

Patterns = NDArray[np.unsignedinteger]

_FUSED: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F16": np.dtype("<i2"), "F32": np.dtype("<f4")}
_UNSIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype("u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}


def kept(values: NDArray[np.floating[Any]], band: Band) -> NDArray[np.bool_]:
    """Which elements are kept.

    Args:
        values: (n,) floats, or their differences from a base.
        band: compared in float64, in which no float of at most 64 bits is rounded.

    Returns:
        (n,) bool; a NaN is in no interval.
    """
    wide = values.astype(np.float64)
    inside = (wide >= band.low) & (wide <= band.high)
    return inside if band.inside else ~inside


@np.errstate(all="ignore")
def changes(model: Stored, base: Stored) -> NDArray[np.float32]:
    """Subtract a base, one float32 operation an element, as a delta does."""
    difference: NDArray[np.float32] = widen(model) - widen(base)
    return difference


def edit(model: Stored, base: Stored | None, band: Band, out: Stored) -> int:
    """Edit a block.

    Args:
        model: what is edited.
        base: compared are the differences from it, and what is not kept is its element, rounded to the
            model's dtype if it has another; None to compare the elements, and to put +0.
        band: what is kept.
        out: where it goes, of the model's dtype and size. What is kept keeps its bits.

    Returns:
        how many elements were kept.

    Raises:
        ValueError: sizes differ, or dtypes that may not.
    """
    if out.dtype != model.dtype or {s.size for s in (out, base or out)} != {model.size}:
        raise ValueError(f"{model.size} elements of {model.dtype.name} become as many of it")
    instead = None if base is None else _as_dtype(base, model.dtype)
    several = (model, base) if base is not None else (model,)
    if all(s.dtype.name in _FUSED for s in several):
        return _fused(model, base, instead, band, out)
    values = widen(model, wide=model.dtype.bits == 64) if base is None else changes(model, base)
    mask = kept(values, band)
    _patterns(out)[:] = np.where(mask, _patterns(model), 0 if instead is None else _patterns(instead))
    return int(np.count_nonzero(mask))


def _fused(model: Stored, base: Stored | None, instead: Stored | None, band: Band, out: Stored) -> int:
    own, into = _patterns(model), _patterns(out)
    limits = (*narrowed(band), band.inside)
    if base is None or instead is None:
        return int(editing.keep(_typed(model), own, *limits, into))
    return int(editing.keep_changes(_typed(model), own, _typed(base), _patterns(instead), *limits, into))


@np.errstate(over="ignore")
def narrowed(band: Band) -> tuple[np.float32, np.float32]:
    """The same interval of float32: its ends are the outermost float32 that lie in it."""
    low, high = np.float32(band.low), np.float32(band.high)
    if float(low) < band.low:
        low = np.nextafter(low, np.float32(np.inf))
    if float(high) > band.high:
        high = np.nextafter(high, np.float32(-np.inf))
    return low, high


def can_stand_in(base: Dtype, dtype: Dtype) -> bool:
    """Whether elements of a base can be put among those of another dtype."""
    return base == dtype or dtype.name in OUTPUTS


def _as_dtype(base: Stored, dtype: Dtype) -> Stored:
    if base.dtype == dtype:
        return base
    made = Stored(np.empty(base.size * dtype.bits // 8, np.uint8), dtype)
    round_into(widen(base, wide=base.dtype.bits == 64 or dtype.bits == 64), made)
    return made


def _patterns(block: Stored) -> Patterns:
    patterns: Patterns = block.data.view(_UNSIGNED[block.dtype.bits])
    return patterns


def _typed(block: Stored) -> NDArray[Any]:
    typed: NDArray[Any] = block.data.view(_FUSED[block.dtype.name])
    return typed
