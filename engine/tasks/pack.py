"""Copying a checkpoint into a Zarr group: read, count, write, read back, count again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.errors import TaskError
from engine.formats.zarr.layout import layout_of, stored_form
from engine.formats.zarr.writer import GroupWriter
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Span, TensorInfo
from engine.nouns.tasks import Outcome, Part, Task
from engine.sketch import Counter, Sketch
from engine.tasks.blocks import BlockReader
from engine.tasks.ordering import in_order

Checksums = tuple[tuple[int, int], ...]
"""For each shard the index of its first element and the CRC-32 of its bytes."""


class PackBody:
    """Runs the tasks of a pack, each one shard, or a tensor that must be put in order first.

    Args:
        uri: of the group.
        codec: that it is written with.
        tensors: what is copied, by ordinal.
    """

    def __init__(self, uri: str, codec: str, tensors: Mapping[int, TensorInfo]) -> None:
        self._writer, self._tensors = GroupWriter(uri, codec), tensors
        self._reader = BlockReader()
        self._counters: dict[str, Counter] = {}
        self._buffer = np.empty(0, np.uint8)

    def __call__(self, task: Task) -> Outcome[Checksums]:
        """Copy what a task reads.

        Raises:
            TaskError: what was read back differs from what was written.
        """
        ordinal = task.chunks[0].tensor
        shards = self._ordered(task) if self._is_scattered(task) else self._whole(task)
        parts = tuple(self._copy(ordinal, span, data) for span, data in shards)
        return Outcome(task.key, task.nbytes, parts)

    def _is_scattered(self, task: Task) -> bool:
        unordered = not self._tensors[task.chunks[0].tensor].ordered
        return unordered or any(c.piece is not None for c in task.chunks)

    def _whole(self, task: Task) -> Iterator[tuple[Span, NDArray[np.uint8]]]:
        """The one shard of a task."""
        if self._buffer.size < task.nbytes:
            self._buffer = np.empty(task.nbytes, np.uint8)
        data, done = self._buffer[: task.nbytes], 0
        for _, blocks in self._reader.read(task):
            for block in blocks:
                data[done : done + block.size] = block
                done += block.size
        yield (task.chunks[0].first, task.chunks[-1].span[1]), data

    def _ordered(self, task: Task) -> Iterator[tuple[Span, NDArray[np.uint8]]]:
        """The shards of a tensor that lies in another order."""
        tensor = self._tensors[task.chunks[0].tensor]
        form = stored_form(tensor)
        assert form is not None
        item = form[2]
        with in_order(self._reader.read(task), tensor.elements, item, tensor.name) as ordered:
            for start, stop in layout_of(tensor.shape, item).spans():
                yield (start, stop), ordered.take(start, stop)

    def _copy(self, ordinal: int, span: Span, data: NDArray[np.uint8]) -> Part[Checksums]:
        tensor = self._tensors[ordinal]
        counted, checksum = self._observe(tensor, data), zlib.crc32(data.data)
        self._writer.write(ordinal, tensor, span, data)
        back = self._writer.read(ordinal, tensor, span)
        if zlib.crc32(back.data) != checksum or not _equal(self._observe(tensor, back), counted):
            message = f"elements {span[0]:,} to {span[1]:,} were read back otherwise than they were written"
            raise TaskError(message, file=self._writer.uri, tensor=tensor.name)
        return Part(ordinal, span, ((span[0], checksum),))

    def _observe(self, tensor: TensorInfo, data: NDArray[np.uint8]) -> Sketch | None:
        if DTYPES[tensor.dtype].coding is None:
            return None
        if tensor.dtype not in self._counters:
            self._counters[tensor.dtype] = Counter(DTYPES[tensor.dtype])
        counter = self._counters[tensor.dtype]
        counter.add(data)
        return counter.sketch()


def _equal(one: Sketch | None, other: Sketch | None) -> bool:
    if one is None or other is None:
        return one is other
    arrays = ("codes", "n", "low_sum", "low_square_sum")
    return (one.zeros, one.minimum, one.maximum) == (other.zeros, other.minimum, other.maximum) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )
