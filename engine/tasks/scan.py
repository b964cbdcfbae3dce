"""First pass: the sketch of each tensor, or of the part of it that the task covers."""

from __future__ import annotations

from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Outcome, Part, Task
from engine.sketch import Counter, Sketch
from engine.tasks.blocks import BlockReader


class ScanBody:
    """Runs scan tasks, with one table per dtype reused from task to task."""

    def __init__(self) -> None:
        self._reader = BlockReader()
        self._counters: dict[str, Counter] = {}

    def __call__(self, task: Task) -> Outcome[Sketch]:
        """Count the elements of every chunk of a task."""
        counters, self._counters = self._counters, {}  # come back only when all went well
        parts = []
        for chunk, blocks in self._reader.read(task):
            if chunk.dtype not in counters:
                counters[chunk.dtype] = Counter(DTYPES[chunk.dtype])
            counter = counters[chunk.dtype]
            for block in blocks:
                counter.add(block)
            parts.append(Part(chunk.tensor, chunk.span, counter.sketch()))
        self._counters = counters
        return Outcome(task.key, task.nbytes, tuple(parts))
