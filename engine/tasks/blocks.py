"""The elements of a task's chunks, block by block, from files that must not change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from engine.nouns.tasks import Ahead, Chunk, Task
from engine.storage import Reader, open_reader
from engine.storage.ahead import Buffers, Extent, read_ahead
from engine.tasks.unpack import unpack

Block = NDArray[np.uint8]
Room = Callable[[Chunk], Block | None]
"""Says where a chunk's next bytes are best read to; None for anywhere."""


def _anywhere(chunk: Chunk) -> None:
    """Leave it to the reader."""


class BlockReader:
    """Reads tasks through one buffer that is reused from block to block.

    Args:
        beside: whether its thread reads other tasks at the same time.
    """

    def __init__(self, *, beside: bool = False) -> None:
        self._beside = beside
        self._own: tuple[Ahead, Buffers] | None = None
        self._buffer = np.empty(0, np.uint8)  # numpy asks for huge pages, where it is large
        self._whole = bytearray()

    def read(self, task: Task, room: Room = _anywhere) -> Iterator[tuple[Chunk, Iterator[Block]]]:
        """Go through the chunks of a task in order.

        Args:
            task: what to read.
            room: asked before each block of what is here and lies as it is counted.

        Yields:
            each chunk with its blocks, (n,) uint8, the bytes of whole elements; a block is valid until the
            next is asked for, and all of a chunk's must be asked for before the next chunk.

        Raises:
            FormatError: a file is unreadable, too short, or not the one that was planned.
        """
        if len(self._buffer) < task.block_bytes:
            self._buffer = np.empty(task.block_bytes, np.uint8)
        stored = self._near(task, room) if task.ahead is None else _far(task, self._buffers(task.ahead))
        for chunk in task.chunks:
            yield chunk, self._elements(chunk, task, stored)
        for _ in stored:  # to the end, where the files are looked at once more
            raise AssertionError("more bytes than chunks")

    def _buffers(self, ahead: Ahead) -> Buffers | None:
        if not self._beside:
            return None
        if self._own is None or self._own[0] != ahead:
            self._own = ahead, Buffers(ahead)
        return self._own[1]

    def _elements(self, chunk: Chunk, task: Task, stored: Iterator[memoryview]) -> Iterator[Block]:
        if chunk.piece is None:
            left = chunk.nbytes
            while left:
                block = next(stored)
                left -= len(block)
                for start in range(0, len(block), task.block_bytes):
                    yield _aligned(np.frombuffer(block[start : start + task.block_bytes], np.uint8))
            return
        yield from unpack(self._gather(chunk.nbytes, stored), chunk, task.files[chunk.file].uri)

    def _gather(self, nbytes: int, stored: Iterator[memoryview]) -> memoryview:
        """Bring the stored bytes of a piece together."""
        first = next(stored) if nbytes else memoryview(b"")
        if len(first) == nbytes:
            return first
        if len(self._whole) < nbytes:
            self._whole = bytearray(nbytes)
        whole, done = memoryview(self._whole)[:nbytes], len(first)
        whole[:done] = first
        while done < nbytes:
            block = next(stored)
            whole[done : done + len(block)] = block
            done += len(block)
        return whole

    def _near(self, task: Task, room: Room) -> Iterator[memoryview]:
        """Read what is here, one block after the other, with one file open at a time."""
        with ExitStack() as stack:
            current, reader = -1, None
            for chunk in task.chunks:
                if reader is None or chunk.file != current:
                    if reader is not None:
                        reader.require(task.files[current])
                    stack.close()
                    current = chunk.file
                    reader = stack.enter_context(open_reader(task.files[current].uri))
                    reader.require(task.files[current])
                yield from self._blocks(reader, chunk, task, room)
            if reader is not None:
                reader.require(task.files[current])

    def _blocks(self, reader: Reader, chunk: Chunk, task: Task, room: Room) -> Iterator[memoryview]:
        done = 0
        while done < chunk.nbytes:
            own = room(chunk) if chunk.piece is None else None
            view = memoryview((self._buffer if own is None else own).data)
            part = view[: min(task.block_bytes, chunk.nbytes - done)]
            reader.read_into(part, chunk.offset + done)
            if task.passing:
                reader.forget(chunk.offset + done, len(part))
            yield part
            done += len(part)


def _aligned(block: Block) -> Block:
    """The kernels read words of 8 bytes: a small tensor may lie anywhere in a buffer that it shares."""
    return block.copy() if block.__array_interface__["data"][0] % 8 else block


def _far(task: Task, own: Buffers | None) -> Iterator[memoryview]:
    """Read what is far away, several requests ahead."""
    assert task.ahead is not None
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(f.uri)) for f in task.files]
        for reader, planned in zip(readers, task.files, strict=True):
            reader.require(planned)
        extents = (Extent(c.file, c.offset, c.nbytes) for c in task.chunks)
        yield from read_ahead(readers, extents, task.ahead, own)
        for reader, planned in zip(readers, task.files, strict=True):
            reader.require(planned)
