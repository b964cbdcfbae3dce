"""Scanning past the host's memory: kvikio reads the files of a task into the blocks that a GPU counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from engine.device.counter import GpuCounter
from engine.device.worker import Device
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Chunk, Outcome, Part, Task
from engine.sketch import Sketch
from engine.storage.direct import DirectReader
from engine.storage.uris import scheme_of


class DirectBody:
    """Runs those scan tasks of which no byte need be seen by the CPU.

    Args:
        device: a GPU.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._counters: dict[str, GpuCounter | None] = {}

    def takes(self, task: Task) -> bool:
        """Whether it can run a task: local files, elements that are counted as they lie, and nothing more."""
        local = task.ahead is None and all(scheme_of(f.uri) == "file" for f in task.files)
        return local and all(
            c.piece is None and c.scaled is None and c.matrix is None and self._counter(c.dtype) is not None
            for c in task.chunks
        )

    def _counter(self, dtype: str) -> GpuCounter | None:
        """The counter of a dtype; None for F64, which the CPU rounds, and where there is no memory."""
        if dtype not in self._counters:
            made = self._device.counter(DTYPES[dtype]) if DTYPES[dtype].bits <= 32 else None
            self._counters[dtype] = made if isinstance(made, GpuCounter) else None
        return self._counters[dtype]

    def __call__(self, task: Task) -> Outcome[Sketch]:
        """Count the elements of every chunk of a task that it takes.

        Raises:
            FormatError: a file is unreadable, too short, or not the one that was planned.
            TaskError: kvikio failed.
        """
        counters, self._counters = self._counters, {}  # come back only when all went well
        parts = []
        for chunk, reader in self._read(task):
            counter = counters[chunk.dtype]
            assert counter is not None
            counter.receive(chunk.nbytes, partial(_fill, reader, chunk))
            parts.append(Part(chunk.tensor, chunk.span, counter.sketch()))
        self._counters = counters
        return Outcome(task.key, task.nbytes, tuple(parts))

    def _read(self, task: Task) -> Iterator[tuple[Chunk, DirectReader]]:
        """Every chunk with its file, which must not change meanwhile."""
        with ExitStack() as stack:
            readers = [stack.enter_context(DirectReader(f.uri)) for f in task.files]
            for reader, planned in zip(readers, task.files, strict=True):
                reader.require(planned)
            for chunk in task.chunks:
                yield chunk, readers[chunk.file]
            for reader, planned in zip(readers, task.files, strict=True):
                reader.require(planned)


def _fill(reader: DirectReader, chunk: Chunk, memory: Any, nbytes: int, done: int) -> None:
    reader.read_onto(memory, nbytes, chunk.offset + done)
