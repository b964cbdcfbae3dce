"""Second pass over 32-bit floats: the low halves of the codes that a threshold or a quantile cuts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels.refining import refine32
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Outcome, Part, Task
from engine.sketch import as_f32_patterns
from engine.statistics.refinement import Refinement, from_tables
from engine.tasks.blocks import BlockReader
from engine.tasks.scaled import Dequantiser


class RefineBody:
    """Runs refining tasks. A task says in `refine` which codes of which tensor to look into."""

    def __init__(self) -> None:
        self._reader = BlockReader()
        self._tables: RefineTables | None = None

    def __call__(self, task: Task) -> Outcome[Refinement]:
        """Refine the elements of every chunk of a task."""
        tables, self._tables = self._tables or RefineTables(), None  # come back only when all went well
        parts = []
        for chunk, blocks in self._reader.read(task):
            dtype = DTYPES["F32" if chunk.scaled else chunk.dtype]
            values = Dequantiser(task, chunk).all_values(blocks) if chunk.scaled else blocks
            tables.choose(task.refine[chunk.tensor])
            for block in values:
                tables.add(as_f32_patterns(block, dtype))
            parts.append(Part(chunk.tensor, chunk.span, tables.take()))
        self._tables = tables
        return Outcome(task.key, task.nbytes, tuple(parts))


class RefineTables:
    """What the kernel adds to, reused from chunk to chunk: clearing what was used is cheaper than zeros."""

    def __init__(self) -> None:
        self._codes: tuple[int, ...] = ()
        self._slots = np.full(65536, -1, np.int16)
        self._low_counts = np.zeros((0, 65536), np.uint64)
        self._powers = np.zeros((65536, 4), np.uint64)

    def choose(self, codes: tuple[int, ...]) -> None:
        """Begin a chunk whose low halves are looked into under these codes."""
        self._slots[list(self._codes)] = -1
        self._slots[list(codes)] = np.arange(len(codes))
        self._codes = codes
        if len(self._low_counts) < len(codes):
            self._low_counts = np.zeros((len(codes), 65536), np.uint64)

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """Count (n,) uint32 patterns."""
        refine32(patterns, self._slots, self._low_counts, self._powers)

    def add_zeros(self, count: int) -> None:
        """Count so many elements that are +0."""
        if self._slots[0] >= 0:
            self._low_counts[self._slots[0], 0] += np.uint64(count)

    def take(self) -> Refinement:
        """Hand out what was counted, and clear it."""
        found = from_tables(self._codes, self._low_counts[: len(self._codes)], self._powers)
        for row, (low, _) in enumerate(found.lows.values()):
            self._low_counts[row, low] = 0
        self._powers[list(found.fourths)] = 0
        return found
