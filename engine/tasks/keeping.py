"""The operands of one tensor in memory, for a merge that goes through them several times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.nouns.tasks import Task
from engine.tasks.lockstep import Elements
from engine.tasks.together import BLOCK, Blocks


class Kept:
    """Room that is reused from tensor to tensor.

    Attributes:
        held: all elements of every operand.
    """

    def __init__(self) -> None:
        self._rooms: list[NDArray[np.uint8]] = []
        self.held: list[Elements] = []
        self._elements = 0

    def fill(self, blocks: Iterator[Blocks], elements: int, *, steady: bool) -> None:
        """Keep a tensor.

        Args:
            blocks: all of its elements; every operand has one dtype.
            elements: how many there are.
            steady: whether a block that holds all of them stays as it is, and need not be copied.
        """
        self.held, self._elements = [], elements
        for start, found in blocks:
            if steady and found[0].patterns.size == elements:
                self.held = found
                break
            if not self.held:
                self.held = [self._room(number, one) for number, one in enumerate(found)]
            stop = start + found[0].patterns.size
            for held, one in zip(self.held, found, strict=True):
                held.patterns[start:stop] = one.patterns

    def _room(self, number: int, like: Elements) -> Elements:
        nbytes = self._elements * like.patterns.itemsize
        if number == len(self._rooms):
            self._rooms.append(np.empty(0, np.uint8))
        if self._rooms[number].size < nbytes:
            self._rooms[number] = np.empty(nbytes, np.uint8)
        return Elements(like.dtype, self._rooms[number][:nbytes].view(like.patterns.dtype))

    def blocks(self, unit: int | None) -> Iterator[Blocks]:
        """Go through what was kept.

        Args:
            unit: cut only at multiples of so many elements; anywhere by default.
        """
        size = BLOCK if unit is None else max(BLOCK // unit, 1) * unit
        for start in range(0, self._elements, size):
            stop = min(start + size, self._elements)
            yield start, [Elements(one.dtype, one.patterns[start:stop]) for one in self.held]


def is_plain(operand: Task) -> bool:
    """Whether everything is here and lies as it is read, so that it goes straight into a reader's buffer."""
    return operand.ahead is None and all(c.piece is None for c in operand.chunks)


def at_once(operand: Task) -> Task:
    """The same, read with one request for each chunk."""
    largest = max((c.nbytes for c in operand.chunks), default=0)
    return replace(operand, block_bytes=max(operand.block_bytes, -(-largest // 8) * 8))
