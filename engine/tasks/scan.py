"""First pass: the sketch of each tensor, or of the part of it that the task covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.bands.counter import BandCounter
from engine.device.counter import AnyCounter
from engine.device.worker import Device
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Chunk, Outcome, Part, Task
from engine.sketch import Sketch, as_values
from engine.tasks.blocks import BlockReader
from engine.tasks.scaled import Dequantiser


class ScanBody:
    """Runs scan tasks, with one table per dtype reused from task to task.

    Args:
        device: where they count; the CPU by default.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._reader = BlockReader()
        self._device = device or Device()
        self._counters: dict[str, AnyCounter] = {}

    def __call__(self, task: Task) -> Outcome[Sketch]:
        """Count the elements of every chunk of a task."""
        counters, self._counters = _Counters(self._device, self._counters), {}  # come back if all goes well
        parts: list[Part[Sketch]] = []
        run: _Run | None = None
        for chunk, blocks in self._reader.read(task, counters.room):
            if run is None or not run.goes_on_with(chunk):
                parts += run.parts() if run else ()
                run = _Run(chunk, counters)
            run.add(task, chunk, blocks)
        parts += run.parts() if run else ()
        self._counters = counters.made
        return Outcome(task.key, task.nbytes, tuple(parts))


class _Counters:
    """The counters of one task.

    Args:
        device: where others are made.
        made: those that there are.
    """

    def __init__(self, device: Device, made: dict[str, AnyCounter]) -> None:
        self._device, self.made = device, made

    def of(self, dtype: str) -> AnyCounter:
        """The counter of a dtype."""
        if dtype not in self.made:
            self.made[dtype] = self._device.counter(DTYPES[dtype])
        return self.made[dtype]

    def room(self, chunk: Chunk) -> NDArray[np.uint8] | None:
        """Where a chunk's elements are best read to; None for anywhere."""
        return self.of(chunk.dtype).room()


class _Run:
    """A chunk; or, of a matrix, those that follow each other, so that no rows are torn apart between them."""

    def __init__(self, chunk: Chunk, counters: _Counters) -> None:
        self._chunk, self._stop = chunk, chunk.first
        self._codes = _Side(counters.of(chunk.dtype), chunk)
        self._values = _Side(counters.of("F32"), chunk) if chunk.scaled else None

    def goes_on_with(self, chunk: Chunk) -> bool:
        """Whether a chunk follows."""
        together = chunk.matrix is not None and chunk.tensor == self._chunk.tensor
        return together and chunk.first == self._stop

    def add(self, task: Task, chunk: Chunk, blocks: Iterator[NDArray[np.uint8]]) -> None:
        """Count the elements of the next chunk."""
        dequantiser = Dequantiser(task, chunk) if chunk.scaled else None
        for block in blocks:
            self._codes.add(block)
            if self._values and dequantiser:
                self._values.add(dequantiser.values(block))
        self._stop = chunk.span[1]

    def parts(self) -> Iterator[Part[Sketch]]:
        """What was counted."""
        span = self._chunk.first, self._stop
        if self._values and self._chunk.scaled:
            yield Part(self._chunk.scaled.tensor, span, self._values.sketch())
        yield Part(self._chunk.tensor, span, self._codes.sketch())


class _Side:
    """What is found out about elements of one dtype."""

    def __init__(self, counter: AnyCounter, chunk: Chunk) -> None:
        self._counter = counter
        self._bands: BandCounter | None = None
        if chunk.matrix is not None and not counter.measure(chunk.matrix, chunk.first):
            self._bands = BandCounter(chunk.matrix, chunk.first)

    def add(self, block: NDArray[np.uint8]) -> None:
        self._counter.add(block)
        if self._bands:
            self._bands.add(as_values(block, self._counter.dtype))

    def sketch(self) -> Sketch:
        sketch = self._counter.sketch()
        return replace(sketch, bands=self._bands.bands()) if self._bands else sketch
