"""The sketch: how often each code occurs in a tensor. Integers, so that order never matters.

    observe(x) == combine(observe(part) for part in split(x))       for every split and every order

A sketch of a complete coding (every 8- and 16-bit float) says everything about the tensor's values. One
of 32-bit floats adds, for each code, the sum of the low halves and of their squares, and carries what no
sum tells: the number of exact zeros and the smallest and largest finite element. A scan that looks at the
order of elements too adds `Bands`, which combine as exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bands.gathering import combine_bands
from engine.bands.known import Bands, Values
from engine.errors import TaskError
from engine.kernels import cpu
from engine.near import NOWHERE, Near
from engine.nouns.dtypes import CODINGS, Coding, Dtype, code_table
from engine.nouns.matrices import Matrix

U64 = NDArray[np.uint64]

LANES = {"bf16": 8, "f16": 2}
"""Measured: bf16 has few live codes and recurs often, f16 many; see BENCHMARKS.md."""

_STRETCH = 1 << 13  # differences that are counted while they are in the first-level cache
_FULL = 1 << 32  # elements of 8 or 16 bits: more than a counter of 32 bits holds
_FOLD_AFTER = 1 << 23  # well below the 24 bits of a packed count
_ZERO_CODES = [0x0000, 0x8000]


@dataclass(frozen=True, slots=True)
class Sketch:
    """The codes that occur, with their counts.

    Attributes:
        coding: name of the coding.
        codes: (k,) uint16, increasing.
        n: (k,) uint64, elements of each code, all positive.
        low_sum: (k,) uint64, sum of their low halves; None for a complete coding.
        low_square_sum: (k,) uint64, sum of the squares of their low halves; likewise.
        zeros: elements equal to zero, of either sign.
        minimum: the smallest finite element, +inf when there is none.
        maximum: the largest finite element, -inf when there is none.
        bands: what depends on the order of the elements, None if that was not asked for.
    """

    coding: str
    codes: NDArray[np.uint16]
    n: U64
    low_sum: U64 | None
    low_square_sum: U64 | None
    zeros: int
    minimum: float
    maximum: float
    bands: Bands | None = None

    @property
    def count(self) -> int:
        """All elements, NaN and infinities among them."""
        return int(self.n.sum())


def empty(coding: str) -> Sketch:
    """Make the sketch of no elements, neutral in `combine`."""
    none = np.zeros(0, np.uint64)
    low = None if CODINGS[coding].complete else none
    return Sketch(coding, np.zeros(0, np.uint16), none, low, low, 0, np.inf, -np.inf)


def observe(data: bytes | memoryview | NDArray[np.uint8], dtype: Dtype) -> Sketch:
    """Sketch raw little-endian elements.

    Args:
        data: whole elements of the dtype.
        dtype: an entry of `DTYPES` that has a coding.

    Returns:
        their sketch.
    """
    counter = Counter(dtype)
    counter.add(np.frombuffer(data, np.uint8))
    return counter.sketch()


def combine(*sketches: Sketch) -> Sketch:
    """Sketch of all the elements of sketches of one coding. Associative and commutative.

    It has bands if all of them have.

    Raises:
        ValueError: no sketches, or of different codings.
    """
    codings = {s.coding for s in sketches}
    if len(codings) != 1:
        raise ValueError(f"cannot combine sketches of codings {sorted(codings)}")
    if len(sketches) == 1:
        return sketches[0]
    coding = CODINGS[sketches[0].coding]
    totals = np.zeros((3, coding.size), np.uint64)
    for sketch in sketches:
        totals[0, sketch.codes] += sketch.n
        if sketch.low_sum is not None and sketch.low_square_sum is not None:
            totals[1, sketch.codes] += sketch.low_sum
            totals[2, sketch.codes] += sketch.low_square_sum
    codes, low_sums = _live(coding, totals)
    n = totals[0, codes]
    if not coding.complete:
        _check_room(n)
    return Sketch(
        coding.name,
        codes,
        n,
        *low_sums,
        zeros=sum(s.zeros for s in sketches),
        minimum=min(s.minimum for s in sketches),
        maximum=max(s.maximum for s in sketches),
        bands=_bands(sketches),
    )


def _bands(sketches: Sequence[Sketch]) -> Bands | None:
    known = [s.bands for s in sketches if s.bands is not None]
    return reduce(combine_bands, known) if len(known) == len(sketches) else None


def _live(coding: Coding, totals: U64) -> tuple[NDArray[np.uint16], tuple[U64 | None, U64 | None]]:
    codes = np.flatnonzero(totals[0]).astype(np.uint16)
    return codes, (None, None) if coding.complete else (totals[1, codes], totals[2, codes])


class Counter:
    """Adds blocks of raw elements to one dense table, reused from tensor to tensor.

    Args:
        dtype: an entry of `DTYPES` that has a coding.

    Attributes:
        near: where to keep magnitudes of 32-bit floats until the next sketch, if that is wanted.
    """

    def __init__(self, dtype: Dtype) -> None:
        if dtype.coding is None:
            raise ValueError(f"{dtype.name} is not counted: {dtype.reason}")
        self.dtype, self.coding = dtype, dtype.coding
        self._totals = np.zeros((3, self.coding.size), np.uint64)
        self._table = self._new_table()
        self._tops = np.zeros((4 if self.coding.name == "f32" else 0, 65536), np.uint32)
        self._is_dense = False  # whether more than the first lane of the table is in use
        self._room = np.empty((3, _STRETCH if self.coding.name == "f32" else 0), np.uint32)
        self._pending = 0
        self._subnormals = 0  # elements that share the code of zero
        self._extremes = (np.inf, -np.inf)
        self.near: Near | None = None

    def _new_table(self) -> NDArray[Any]:
        if self.coding.name == "f32":
            return np.zeros((4, 65536, 2), np.uint64)
        if self.coding.size == 256:
            return np.zeros((8, 256), np.uint32)
        return np.zeros((LANES[self.coding.name], 65536), np.uint32)

    def room(self) -> None:
        """Where the next elements should be read to: it does not matter."""

    def measure(self, matrix: Matrix, first: int) -> bool:
        """Whether it finds out bands too; others must do that."""
        return False

    def add(self, block: NDArray[np.uint8]) -> None:
        """Count a block of whole little-endian elements, as bytes."""
        if not self.coding.complete:
            self._add32(block)
            return
        for start in range(0, block.size, _FULL // 4):
            part = block[start : start + _FULL // 4]
            if self.coding.size == 256:
                cpu.count8(part, self._table)
            else:
                cpu.count16(part.view("<u2"), self._table)
            self._pending += part.size
            if self._pending >= _FULL // 2:
                self._fold()

    def add_zeros(self, count: int) -> None:
        """Count so many elements that are +0."""
        self._totals[0, 0] += np.uint64(count)
        if count and not self.coding.complete:
            self._extremes = min(0.0, self._extremes[0]), max(0.0, self._extremes[1])

    def _add32(self, block: NDArray[np.uint8]) -> None:
        patterns = as_f32_patterns(block, self.dtype)
        for start in range(0, patterns.size, _FOLD_AFTER):
            part = patterns[start : start + _FOLD_AFTER]
            if self._pending + part.size > _FOLD_AFTER:
                self._fold()
            self._count32(part)
            self._pending += part.size

    def _count32(self, patterns: NDArray[np.uint32]) -> None:
        cpu.count32(patterns, self._table)
        self._is_dense = True
        of_infinities, of_zeros = cpu.has_lows(self._table)
        if of_infinities:
            cpu.move_short_nans(patterns, self._table)
        if of_zeros:
            self._subnormals += _short_subnormals(patterns)
        self._widen(*_extremes(patterns))
        if self.near is not None:
            self.near.kept = cpu.keep_near(patterns, *self.near.place)

    def add_bf16_differences(self, tuned: NDArray[np.uint16], base: NDArray[np.uint16]) -> None:
        """Count tuned - base in float32, of two blocks of bf16 patterns; for the coding of F32.

        The same as `add` of the differences, each of which that is no number is the quiet NaN.
        """
        for start in range(0, tuned.size, _FOLD_AFTER):
            self._add_differences(tuned[start : start + _FOLD_AFTER], base[start : start + _FOLD_AFTER])

    def _add_differences(self, tuned: NDArray[np.uint16], base: NDArray[np.uint16]) -> None:
        if self._pending + tuned.size > _FOLD_AFTER:
            self._fold()
        self._pending += tuned.size
        place = NOWHERE if self.near is None else self.near.place
        *extremes, kept, is_dense = cpu.count_bf16(tuned, base, self._room, self._table, self._tops, *place)
        self._is_dense |= is_dense
        if self.near is not None:
            self.near.kept = kept
        _, of_zeros = cpu.has_lows(self._table)
        if of_zeros or _beyond(*extremes):  # rare: look at them again
            patterns = np.empty(tuned.size, np.uint32)
            cpu.subtract_bf16(tuned, base, patterns)
            self._subnormals += _short_subnormals(patterns) if of_zeros else 0
            self._widen(*_extremes(patterns))
        else:
            self._widen(*_ordered(*extremes))

    def _widen(self, low: float, high: float) -> None:
        self._extremes = min(low, self._extremes[0]), max(high, self._extremes[1])

    def _fold(self) -> None:
        if self.coding.complete:
            cpu.drain(self._table, self._totals[0])
        else:
            cpu.drain(self._tops, self._totals[0])
            cpu.drain32(self._table if self._is_dense else self._table[:1], self._totals)
            self._is_dense = False
        self._pending = 0

    def sketch(self) -> Sketch:
        """Hand out what was counted so far, and start again from nothing.

        Raises:
            TaskError: more elements share a code than the sum of squares has room for.
        """
        self._fold()
        zeros = 0 if self.coding.complete else int(self._totals[0, _ZERO_CODES].sum()) - self._subnormals
        sketch = from_totals(self.coding, self._totals, zeros, *self._extremes)
        self._totals[:, sketch.codes] = 0
        self._subnormals, self._extremes = 0, (np.inf, -np.inf)
        self.near = None
        return sketch


def from_totals(coding: Coding, totals: U64, zeros: int = 0, low: float = 0, high: float = 0) -> Sketch:
    """Make a sketch of dense sums.

    Args:
        coding: what the codes are.
        totals: (3, size) uint64: counts, sums of low halves, sums of their squares; (1, size) for a complete
            coding.
        zeros: elements equal to zero; a complete coding tells them and the extremes itself.
        low: the smallest finite element, +inf when there is none.
        high: the largest, likewise -inf.

    Raises:
        TaskError: more elements share a code than the sum of squares has room for.
    """
    codes, low_sums = _live(coding, totals)
    n = totals[0, codes]
    if coding.complete:
        zeros, low, high = _from_codes(coding, codes, n)
    else:
        _check_room(n)
    return Sketch(coding.name, codes, n, *low_sums, zeros, low, high)


def _check_room(n: U64) -> None:
    if n.max(initial=0) >> np.uint64(32):
        raise TaskError(
            "more than 4,294,967,295 elements share one code: the squares of their low halves overflow"
        )


def as_f32_patterns(block: NDArray[np.uint8], dtype: Dtype) -> NDArray[np.uint32]:
    """View bytes of F32, or round bytes of F64, as (n,) uint32 patterns of F32.

    Rounding makes no number infinite and none but zero zero: what lies beyond the range of F32 becomes its
    largest or its smallest number.
    """
    if dtype.bits == 32:
        return block.view("<u4")
    wide = block.view("<f8")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = wide.astype("<f4")
    beyond = np.flatnonzero(np.isinf(narrow) & np.isfinite(wide) | (narrow == 0) & (wide != 0))
    limits = np.finfo(np.float32)
    nearest = np.where(np.abs(wide[beyond]) > 1, limits.max, limits.smallest_subnormal)
    narrow[beyond] = np.copysign(nearest, wide[beyond])
    return narrow.view("<u4")


def as_f32(data: NDArray[np.uint8], dtype: Dtype) -> NDArray[np.float32]:
    """Convert bytes of floats of at most 32 bits, or round those of F64, to (n,) float32."""
    if dtype.bits >= 32:
        return as_f32_patterns(data, dtype).view(np.float32)
    if dtype.coding is None:
        raise ValueError(f"{dtype.name} is not counted: {dtype.reason}")
    if dtype.coding.name == "bf16":
        wide = data.view("<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype.coding.name == "f16":
        with np.errstate(invalid="ignore"):  # signalling NaNs are converted on purpose
            return data.view("<f2").astype(np.float32)
    small: NDArray[np.float32] = code_table(dtype.coding.name).value.astype(np.float32)[data]
    return small


def as_values(data: NDArray[np.uint8], dtype: Dtype) -> Values:
    """Elements as bands take them: patterns of 16 bits as they are, others as float32."""
    if dtype.bits == 16:
        return data.view(np.uint16 if dtype.name == "BF16" else np.int16)
    return as_f32(data, dtype)


def _from_codes(coding: Coding, codes: NDArray[np.uint16], n: U64) -> tuple[int, float, float]:
    """Zeros, minimum and maximum of a complete coding: the codes tell."""
    values = code_table(coding.name).value[codes]
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
    return int(n[values == 0].sum()), low + 0.0, high + 0.0


def _short_subnormals(patterns: NDArray[np.uint32]) -> int:
    magnitude = patterns & np.uint32(0x7FFFFFFF)
    return int(np.count_nonzero((magnitude > 0) & (magnitude <= 0xFFFF)))


def _extremes(patterns: NDArray[np.uint32]) -> tuple[float, float]:
    """Find the smallest and largest finite element of (n,) uint32 F32 patterns."""
    if not patterns.size:
        return np.inf, -np.inf
    extremes = cpu.extremes32(patterns)
    if not _beyond(*extremes):
        return _ordered(*extremes)
    values = patterns.view("<f4")
    finite = values[np.isfinite(values)]
    return float(finite.min(initial=np.inf)) + 0.0, float(finite.max(initial=-np.inf)) + 0.0


def _beyond(top: np.int32, high: np.uint32, low: np.uint32) -> bool:
    """Whether infinities or NaNs are among patterns with these extremes."""
    return bool(top >= 0x7F800000 or high >= 0xFF800000)


def _ordered(top: np.int32, high: np.uint32, low: np.uint32) -> tuple[float, float]:
    """The smallest and the largest of finite elements, from the extremes of their patterns."""
    largest = np.uint32(top if top >= 0 else low)
    smallest = np.uint32(high if high >> 31 else low)
    return _float(smallest), _float(largest)


def _float(pattern: np.uint32) -> float:
    return float(pattern.view(np.float32)) + 0.0
