"""Merges blocks of stored elements into one: widened, merged by a method, rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import floats
from engine.merge_methods.registry import Method
from engine.nouns.dtypes import Dtype
from engine.nouns.merging import Need, Stretch
from engine.sketch import as_f32

SPAN = 1 << 15
"""Elements merged at once where there is no fused loop: few enough to stay in the second-level cache."""

_VIEWS: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F16": np.dtype("<i2"), "F32": np.dtype("<f4")}
OUTPUTS = (*_VIEWS, "F64")
"""Dtypes that can be written; F64 only of merges in float64."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A block of elements as they are stored.

    Attributes:
        data: (m * itemsize,) uint8, little-endian.
        dtype: a float of 8 to 64 bits.
    """

    data: NDArray[np.uint8]
    dtype: Dtype

    @property
    def size(self) -> int:
        """Elements."""
        return self.data.size * 8 // self.dtype.bits

    def part(self, start: int, stop: int) -> Stored:
        """Some of the elements."""
        width = self.dtype.bits // 8
        return Stored(self.data[start * width : stop * width], self.dtype)


def merge(
    method: Method,
    base: Stored | None,
    models: Sequence[Stored],
    out: Stored,
    arguments: dict[str, Any],
    *,
    stretch: Stretch,
    wide: bool = False,
) -> None:
    """Merge blocks.

    Args:
        method: how.
        base: the base's block, if the method has one.
        models: the models' blocks, of the same size.
        out: where the merged elements go, rounded to the nearest, ties to even; too large becomes infinite,
            as in numpy, and every NaN one quiet NaN.
        arguments: parameters of the method, and numbers of the whole tensor.
        stretch: where the blocks lie.
        wide: compute in float64, not in float32.

    Raises:
        ConfigError: parameters do not go together.
        ValueError: sizes differ, the count of models or the dtype is not one the method or the output has.
    """
    _check(method, base, models, out, wide)
    first = [base] if base is not None and method.schema.base else []
    if method.fused is not None and not wide and _fits(first, models):
        where = {"stretch": stretch} if Need.STRETCH in method.needs else {}
        typed = tuple(map(_typed, models))
        method.fused(*map(_typed, first), typed, _typed(out), **arguments, **where)
    else:
        _merge_spans(method, first, models, out, arguments, stretch, wide)


def _merge_spans(
    method: Method,
    first: Sequence[Stored],
    models: Sequence[Stored],
    out: Stored,
    arguments: dict[str, Any],
    stretch: Stretch,
    wide: bool,
) -> None:
    """Merge by the definition, a span at a time; `first` is the base, if there is one."""
    rows = stretch.columns if Need.ROWS in method.needs else 1
    span = max(SPAN // rows, 1) * rows
    for start in range(0, out.size, span):
        stop = min(start + span, out.size)
        base = [widen(b.part(start, stop), wide) for b in first]
        blocks = [widen(m.part(start, stop), wide) for m in models]
        place = {"stretch": replace(stretch, start=stretch.start + start)}
        where = place if Need.STRETCH in method.needs else {}
        round_into(method(base[0] if base else None, blocks, **arguments, **where), out.part(start, stop))


def _check(method: Method, base: Stored | None, models: Sequence[Stored], out: Stored, wide: bool) -> None:
    schema = method.schema
    if schema.base and base is None:
        raise ValueError(f"{method.name} needs a base")
    if not schema.least <= len(models) <= schema.most:
        raise ValueError(f"{method.name} does not merge {len(models)} models")
    sizes = {m.size for m in (*models, out, *([base] if base else []))}
    if len(sizes) > 1:
        raise ValueError(f"blocks have {' and '.join(map(str, sorted(sizes)))} elements")
    if out.dtype.name not in OUTPUTS or (out.dtype.name == "F64" and not wide):
        raise ValueError(f"nothing is rounded to {out.dtype.name}")


def _fits(first: Sequence[Stored], models: Sequence[Stored]) -> bool:
    """Whether a fused loop takes the blocks: its models are arrays of one type."""
    if not all(i.dtype.name in _VIEWS for i in (*first, *models)):
        return False
    return len({(m.dtype.name, m.data.flags.writeable, _typed(m).flags.aligned) for m in models}) == 1


def _typed(block: Stored) -> NDArray[Any]:
    typed: NDArray[Any] = block.data.view(_VIEWS[block.dtype.name])
    return typed


def widen(block: Stored, wide: bool = False) -> NDArray[np.floating[Any]]:
    """Take stored elements as (m,) float32, or as float64, in which nothing is lost."""
    if block.dtype.name == "F64" and wide:
        return block.data.view("<f8")
    if block.dtype.name in _VIEWS:
        values = np.empty(block.size, np.float32)
        floats.convert(_typed(block), values)
    else:
        values = as_f32(block.data, block.dtype)
    return values.astype(np.float64) if wide else values


def round_into(values: NDArray[np.floating[Any]], out: Stored) -> None:
    """Round (m,) float32 or float64 once, as `merge` does."""
    if out.dtype.name == "F64":
        out.data.view("<f8")[:] = np.where(np.isnan(values), np.nan, values)
        return
    single = values if values.dtype == np.float32 else _to_odd(values, out.dtype)
    floats.convert(single, _typed(out))


def _to_odd(values: NDArray[np.floating[Any]], dtype: Dtype) -> NDArray[np.float32]:
    """Round float64 to float32 so that rounding again is as good as rounding once.

    To F32 itself that is to the nearest. For fewer bits it is to odd: what float32 does not have is cut off,
    and the last bit is set (Boldo and Melquiond 2008).
    """
    with np.errstate(all="ignore"):
        nearest = values.astype(np.float32)
        if dtype.bits == 32:
            return nearest
        too_far = np.abs(nearest) > np.abs(values)
        inexact = np.isfinite(values) & (nearest != values)
    patterns = nearest.view(np.uint32) - too_far.astype(np.uint32)
    odd: NDArray[np.float32] = (patterns | inexact.astype(np.uint32)).view(np.float32)
    return odd
