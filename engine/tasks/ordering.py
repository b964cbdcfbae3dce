"""Tensors that lie in another order than C order, put in order in a scratch file and not in memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import TaskError
from engine.nouns.tasks import Chunk
from engine.tasks.blocks import Block

_HELD_BYTES = 32 << 20


class Ordered:
    """The elements of a tensor in C order, in a file.

    Args:
        pages: the file, mapped.
        item: bytes of an element.
    """

    def __init__(self, pages: mmap.mmap, item: int) -> None:
        self._pages, self._item = pages, item
        self._data: NDArray[Any] = np.frombuffer(pages, f"V{item}")
        self._held = 0

    def put(self, chunk: Chunk, block: Block, done: int) -> int:
        """Put a block in its place.

        Args:
            chunk: that it is of.
            block: (n,) uint8, the bytes of whole elements.
            done: how many elements came before it, of all chunks.

        Returns:
            how many elements have come now.
        """
        elements = block.view(self._data.dtype)
        at = chunk.piece.at if chunk.piece else None
        if at is None:
            self._data[done : done + elements.size] = elements
        else:
            steps = tuple(s * self._item for s in at.strides)
            place = np.lib.stride_tricks.as_strided(self._data[at.start :], at.shape, steps)
            place[...] = elements.reshape(at.shape)
        self._held += block.size
        if self._held > _HELD_BYTES:
            self._let_go()
        return done + elements.size

    def take(self, start: int, stop: int) -> Block:
        """A copy of the bytes of some elements, (n,) uint8."""
        taken = np.array(self._data[start:stop]).view(np.uint8)
        self._let_go()
        return taken

    def _let_go(self) -> None:
        self._pages.madvise(mmap.MADV_DONTNEED)  # they stay in the file, and are nobody's memory
        self._held = 0


@contextmanager
def in_order(
    chunks: Iterable[tuple[Chunk, Iterator[Block]]], elements: int, item: int, name: str
) -> Iterator[Ordered]:
    """Put a tensor in order.

    Args:
        chunks: all of it, with their blocks.
        elements: how many it has.
        item: bytes of an element.
        name: of the tensor, for messages.

    Yields:
        what was put in order; valid within the block.

    Raises:
        TaskError: there is no room for it.
    """
    with _scratch(elements * item, name) as scratch:
        ordered = Ordered(mmap.mmap(scratch.fileno(), elements * item), item)
        for chunk, blocks in chunks:
            done = chunk.first
            for block in blocks:
                done = ordered.put(chunk, block, done)
        yield ordered


def _scratch(nbytes: int, name: str) -> IO[bytes]:
    """A file whose room is there: what is mapped without it ends the process."""
    scratch = None
    try:
        scratch = tempfile.TemporaryFile(prefix="gaussmeter-")  # noqa: SIM115 - the caller closes it
        os.posix_fallocate(scratch.fileno(), 0, nbytes)
    except OSError as error:
        if scratch is not None:
            scratch.close()
        message = f"needs {nbytes:,} bytes in {tempfile.gettempdir()} to be put in order: {error.strerror}"
        raise TaskError(message, tensor=name) from error
    return scratch
