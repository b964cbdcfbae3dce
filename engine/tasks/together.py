"""The elements of several operands side by side, those that are absent filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.merge_methods.apply import Stored, widen
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Step
from engine.tasks.lockstep import Elements, Operand

BLOCK = 1 << 19  # elements: what a read of 16-bit elements brings; fewer take more time in Python
Blocks = tuple[int, list[Elements]]
_Taken = Iterator[tuple[int, dict[int, Elements]]]


class Together:
    """Reads what several operands have of the same elements.

    An element that the first operand has and another lacks is the first one's. One that the first lacks is
    the mean of those that have it, for all that lack it: what mergekit does with tokens.

    Args:
        operands: in the order of the steps' chunks.
    """

    def __init__(self, operands: Sequence[Operand]) -> None:
        self._operands = operands

    def blocks(self, step: Step, unit: int | None = None) -> Iterator[Blocks]:
        """Go through the elements of a step.

        Args:
            step: the next one.
            unit: cut only at multiples of so many elements; anywhere by default.

        Yields:
            index of the block's first element in the tensor, and the elements of every operand; valid until
            the next block is asked for.
        """
        present = [number for number, chunks in enumerate(step.chunks) if chunks]
        for number in present:
            gather = number in step.gathered
            self._operands[number].begin(step.chunks[number], step.held[number], gather=gather)
        taken = self._anywhere(step, present) if unit is None else self._by_units(step, present, unit)
        for start, found in taken:
            yield start, _filled(found, len(step.chunks))
        for number in present:
            self._operands[number].end()

    def finish(self) -> None:
        """End the task, where the files are looked at once more."""
        for operand in self._operands:
            operand.finish()

    def _anywhere(self, step: Step, present: list[int]) -> _Taken:
        done = 0
        while done < step.elements:
            count = min(step.elements - done, BLOCK, *(self._operands[n].ready() for n in present))
            yield step.first + done, {n: self._operands[n].take(count) for n in present}
            done += count

    def _by_units(self, step: Step, present: list[int], unit: int) -> _Taken:
        size = max(BLOCK // unit, 1) * unit
        for done in range(0, step.elements, size):
            count = min(size, step.elements - done)
            yield step.first + done, {n: _gathered(self._operands[n], count) for n in present}


def _gathered(operand: Operand, count: int) -> Elements:
    """Take so many elements, however they come."""
    parts: list[Elements] = []
    left = count
    while left:
        part = operand.take(min(left, operand.ready()))
        left -= part.patterns.size
        whole = not left and not parts
        parts.append(part if whole else Elements(part.dtype, part.patterns.copy()))
    if len(parts) == 1:
        return parts[0]
    return Elements(parts[0].dtype, np.concatenate([p.patterns for p in parts]))


def _filled(found: dict[int, Elements], count: int) -> list[Elements]:
    if len(found) == count:
        return [found[number] for number in range(count)]
    stand_in = found[0] if 0 in found else _mean(list(found.values()))
    return [found.get(number, stand_in) for number in range(count)]


def _mean(several: list[Elements]) -> Elements:
    """Their mean in float32, added up from left to right."""
    if len(several) == 1:
        return several[0]
    with np.errstate(all="ignore"):
        total = several[0].floats().copy()
        for elements in several[1:]:
            total += elements.floats()
        total /= np.float32(len(several))
    return Elements("F32", total.view(np.uint32))


def stored(elements: Elements) -> Stored:
    """The same, as merge methods take it."""
    return Stored(elements.patterns.view(np.uint8), DTYPES[elements.dtype])


def widened(elements: Elements, wide: bool) -> NDArray[np.floating[Any]]:
    """The same as (n,) float32, or float64."""
    return widen(stored(elements), wide)
