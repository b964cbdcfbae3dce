"""The bytes of a task's chunks, block by block, from files that must not change meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from engine.errors import FormatError
from engine.nouns.records import Chunk, SourceFile, Task
from engine.storage import Reader, open_reader

Block = NDArray[np.uint8]


class BlockReader:
    """Reads tasks through one buffer that is reused from block to block."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def read(self, task: Task) -> Iterator[tuple[Chunk, Iterator[Block]]]:
        """Go through the chunks of a task in order.

        Args:
            task: what to read.

        Yields:
            each chunk with its blocks, (n,) uint8; a block is valid until the next is asked for.

        Raises:
            FormatError: a file is unreadable, too short, or not the one that was planned.
        """
        if len(self._buffer) < task.block_bytes:
            self._buffer = bytearray(task.block_bytes)
        with ExitStack() as stack:
            readers = [stack.enter_context(open_reader(f.uri)) for f in task.files]
            _check_unchanged(readers, task.files)
            for chunk in task.chunks:
                yield chunk, self._blocks(readers[chunk.file], chunk, task)
            _check_unchanged(readers, task.files)

    def _blocks(self, reader: Reader, chunk: Chunk, task: Task) -> Iterator[Block]:
        view = memoryview(self._buffer)
        for start in range(0, chunk.nbytes, task.block_bytes):
            part = view[: min(task.block_bytes, chunk.nbytes - start)]
            reader.read_into(part, chunk.offset + start)
            if task.passing:
                reader.forget(chunk.offset + start, len(part))
            yield np.frombuffer(part, np.uint8)


def _check_unchanged(readers: list[Reader], planned: tuple[SourceFile, ...]) -> None:
    for reader, before in zip(readers, planned, strict=True):
        now = reader.describe()
        if now != before:
            raise FormatError(
                f"changed after the scan began: {before.size:,} bytes (version {before.version}), "
                f"now {now.size:,} (version {now.version})",
                file=before.uri,
            )
