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
        parts = []
        for chunk, blocks in self._reader.read(task):
            if chunk.dtype not in self._counters:
                self._counters[chunk.dtype] = Counter(DTYPES[chunk.dtype])
            counter = self._counters[chunk.dtype]
            for block in blocks:
                counter.add(block)
            parts.append(Part(chunk.tensor, chunk.span, counter.sketch()))
        return Outcome(task.key, task.nbytes, tuple(parts))
