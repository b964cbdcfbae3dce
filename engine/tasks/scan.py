"""First pass: the sketch of each tensor, or of the part of it that the task covers."""

from __future__ import annotations

from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Outcome, Part, Task
from engine.sketch import Counter, Sketch
from engine.tasks.blocks import BlockReader
from engine.tasks.scaled import Dequantiser


class ScanBody:
    """Runs scan tasks, with one table per dtype reused from task to task."""

    def __init__(self) -> None:
        self._reader = BlockReader()
        self._counters: dict[str, Counter] = {}

    def __call__(self, task: Task) -> Outcome[Sketch]:
        """Count the elements of every chunk of a task."""
        counters, self._counters = self._counters, {}  # come back only when all went well
        parts: list[Part[Sketch]] = []
        for chunk, blocks in self._reader.read(task):
            codes = _counter(counters, chunk.dtype)
            if chunk.scaled is None:
                for block in blocks:
                    codes.add(block)
            else:
                values, dequantiser = _counter(counters, "F32"), Dequantiser(task, chunk)
                for block in blocks:
                    codes.add(block)
                    values.add(dequantiser.values(block))
                parts.append(Part(chunk.scaled.tensor, chunk.span, values.sketch()))
            parts.append(Part(chunk.tensor, chunk.span, codes.sketch()))
        self._counters = counters
        return Outcome(task.key, task.nbytes, tuple(parts))


def _counter(counters: dict[str, Counter], dtype: str) -> Counter:
    if dtype not in counters:
        counters[dtype] = Counter(DTYPES[dtype])
    return counters[dtype]
