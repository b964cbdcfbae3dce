"""Merging again what was merged, and comparing it with what was written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FormatError
from engine.merge_methods.apply import Stored, merge, widen
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Stretch
from engine.nouns.tasks import Into, Merge, Outcome, Part, Product, Task
from engine.tasks.adapters import run_products
from engine.tasks.blocks import BlockReader
from engine.tasks.editing import EditBody
from engine.tasks.folding import FoldBody
from engine.tasks.forming import Held
from engine.tasks.merge import MergeBody
from engine.tasks.together import stored

_DIGITS = {"BF16": (8, -133), "F16": (11, -24), "F32": (24, -149), "F64": (53, -1074)}
"""Bits of the significand, and the exponent of the smallest number."""
_ONE = 1.0 + 2.0**-10


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison found.

    Attributes:
        elements: that were compared.
        equal: those that are the same to the bit.
        rounded: others that are within one rounding of what float64 gives.
        error: the largest distance of those from what float64 gives, in units of the last place of the
            largest number that the element is made of.
        wrong: indices of the first of all others, in the tensor.
        wrong_count: how many there are.
    """

    elements: int
    equal: int
    rounded: int
    error: float
    wrong: tuple[int, ...]
    wrong_count: int


class CompareBody(MergeBody):
    """Runs the tasks of a merge, and compares instead of writing."""

    def __call__(self, task: Task) -> Outcome[Any]:
        """Compare what the task would write.

        Raises:
            FormatError: a file is not the one that was planned, or shorter.
        """
        if not task.merges:
            return self._compare_products(task)
        while len(self._readers) < len(task.operands):
            self._readers.append(BlockReader(beside=True))
        parts = tuple(
            Part(one.ordinal, (one.steps[0].first, one.steps[-1].span[1]), self._compare(one, blocks))
            for one, blocks in self._sources(task)
        )
        return Outcome(task.key, task.nbytes, parts)

    def _compare(self, one: Merge, blocks: Any) -> Compared:
        dtype = DTYPES[one.into.dtype]
        arguments, _ = self._known(one, blocks)
        found: list[Compared] = []
        for _, start, elements in blocks.steps(self._unit(arguments, one)):
            operands = list(map(stored, elements))
            expected = self._made(one, start, operands, arguments)
            written = _read(one.into, start * dtype.bits // 8, expected.size)
            exact = self._exact(one, start, operands, arguments)
            largest = _largest(operands, exact) if exact is not None else None
            found.append(_compared(Stored(written, dtype), expected, exact, largest, start))
        return joined(found)

    def _compare_products(self, task: Task) -> Outcome[Any]:
        self._fold = self._fold or CompareFoldBody()
        return self._fold(task)

    def _exact(
        self, one: Merge, start: int, blocks: Sequence[Stored], arguments: dict[str, Any] | None
    ) -> NDArray[np.float64] | None:
        """The same in float64; None for what is copied."""
        if arguments is None:
            return None
        out = Stored(np.empty(blocks[0].size * 8, np.uint8), DTYPES["F64"])
        base = None if self._roles.base is None else blocks[self._roles.base]
        models = [blocks[number] for number in self._roles.models]
        place = Stretch(one.into.name, start, one.columns)
        merge(self._method, base, models, out, arguments, stretch=place, wide=True)
        return out.data.view("<f8")


class CompareEditBody(CompareBody, EditBody):
    """Runs the tasks of an edit, and compares instead of writing: every element must be the same."""

    def _exact(self, *given: Any) -> None:
        self._notes.clear()


class CompareFoldBody(FoldBody):
    """Runs the tasks that fold an adapter, and compares instead of writing: all must be the same."""

    def __call__(self, task: Task) -> Outcome[Any]:
        """Compare what the task would write; errors as for `CompareBody`."""
        parts: list[Part[Any]] = []

        def compare(product: Product, held: Held) -> None:
            assert product.into is not None
            dtype, found = DTYPES[product.into.dtype], []
            for start, expected in self._blocks(product, held):
                written = Stored(_read(product.into, start, expected.size), dtype)
                found.append(_compared(written, expected, None, None, start * 8 // dtype.bits))
            parts.append(Part(product.ordinal, product.span, joined(found)))

        run_products(task, self._reader, self._former, compare)
        return Outcome(task.key, task.nbytes, tuple(parts))


def joined(found: Sequence[Compared]) -> Compared:
    """Several comparisons as one."""
    return Compared(
        sum(f.elements for f in found),
        sum(f.equal for f in found),
        sum(f.rounded for f in found),
        max((f.error for f in found), default=0.0),
        tuple(i for f in found for i in f.wrong)[:3],
        sum(f.wrong_count for f in found),
    )


def _read(into: Into, start: int, nbytes: int) -> NDArray[np.uint8]:
    try:
        descriptor = os.open(into.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, nbytes, into.offset + start)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", file=into.path, tensor=into.name) from error
    if len(data) < nbytes:
        raise FormatError("is truncated", file=into.path, tensor=into.name)
    return np.frombuffer(data, np.uint8)


def _largest(operands: Sequence[Stored], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest magnitude that an element is made of: where it cancels, float32 loses what is below."""
    sizes = [np.abs(exact), *(np.abs(widen(operand, wide=True)) for operand in operands)]
    largest: NDArray[np.float64] = np.fmax.reduce(sizes)
    return largest


def _compared(
    written: Stored,
    expected: NDArray[np.uint8],
    exact: NDArray[np.float64] | None,
    largest: NDArray[np.float64] | None,
    start: int,
) -> Compared:
    width = written.dtype.bits // 8
    same = (written.data.reshape(-1, width) == expected.reshape(-1, width)).all(axis=1)
    if exact is None or largest is None:
        wrong = np.flatnonzero(~same)
        return Compared(same.size, int(same.sum()), 0, 0.0, _first(wrong, start), wrong.size)
    with np.errstate(all="ignore"):
        values = widen(written, wide=True).astype(np.float64)
        error = np.abs(values - exact) / _last_place(largest, written.dtype.name)
    error[np.isnan(error)] = 0.0 if np.array_equal(np.isnan(values), np.isnan(exact)) else np.inf
    error[values == exact] = 0.0
    near = error <= _ONE
    wrong = np.flatnonzero(~same & ~near)
    kept = error[np.isfinite(error) & (same | near)]
    most = float(kept.max()) if kept.size else 0.0
    rounded = int((~same & near).sum())
    return Compared(same.size, int(same.sum()), rounded, most, _first(wrong, start), wrong.size)


def _first(wrong: NDArray[np.int64], start: int) -> tuple[int, ...]:
    return tuple((wrong[:3] + start).tolist())


def _last_place(exact: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    """Distance between neighbouring numbers of a dtype around values."""
    digits, least = _DIGITS[dtype]
    _, exponent = np.frexp(exact)
    place: NDArray[np.float64] = np.ldexp(1.0, np.maximum(exponent - digits, least))
    return place
