"""Second pass over 32-bit floats: the low halves of the codes that a threshold or a quantile cuts."""

from __future__ import annotations

import numpy as np

from engine.kernels import cpu
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Outcome, Part, Task
from engine.sketch import as_f32_patterns
from engine.statistics.refinement import Refinement, from_tables
from engine.tasks.blocks import BlockReader
from engine.tasks.scaled import Dequantiser


class RefineBody:
    """Runs refining tasks. A task says in `refine` which codes of which tensor to look into."""

    def __init__(self) -> None:
        self._reader = BlockReader()

    def __call__(self, task: Task) -> Outcome[Refinement]:
        """Refine the elements of every chunk of a task."""
        parts = []
        for chunk, blocks in self._reader.read(task):
            codes = task.refine[chunk.tensor]
            slots = np.full(65536, -1, np.int16)
            slots[list(codes)] = np.arange(len(codes))
            low_counts = np.zeros((len(codes), 65536), np.uint64)
            powers = np.zeros((65536, 4), np.uint64)
            dtype = DTYPES["F32" if chunk.scaled else chunk.dtype]
            for block in Dequantiser(task, chunk).all_values(blocks) if chunk.scaled else blocks:
                cpu.refine32(as_f32_patterns(block, dtype), slots, low_counts, powers)
            parts.append(Part(chunk.tensor, chunk.span, from_tables(codes, low_counts, powers)))
        return Outcome(task.key, task.nbytes, tuple(parts))
