"""The elements of one operand of a difference, as many at a time as the others have too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Chunk, Task
from engine.sketch import as_f32
from engine.tasks.blocks import Block, BlockReader
from engine.tasks.ordering import Ordered, in_order
from engine.tasks.scaled import Dequantiser

_ORDERED = 1 << 17  # elements that are taken at once from a tensor that was put in order
_UNSIGNED = {8: "u1", 16: "<u2", 32: "<u4", 64: "<u8"}


@dataclass(frozen=True, slots=True)
class Elements:
    """Consecutive elements of a tensor.

    Attributes:
        dtype: safetensors' spelling.
        patterns: (n,) unsigned integers as wide as the dtype; valid until the operand is asked for more.
    """

    dtype: str
    patterns: NDArray[np.unsignedinteger]

    def floats(self) -> NDArray[np.float32]:
        """The same as (n,) float32; F64 is rounded, see `engine.sketch.as_f32`."""
        return as_f32(self.patterns.view(np.uint8), DTYPES[self.dtype])


class Operand:
    """Reads the chunks of one operand, step by step.

    Args:
        reader: made for reading `beside` others.
        task: what to read; may be nothing.
    """

    def __init__(self, reader: BlockReader, task: Task) -> None:
        self._task = task
        self._chunks = reader.read(task)
        self._blocks: Iterator[tuple[str, Block]] = iter(())
        self._current: Elements | None = None
        self._done = 0
        self._cleanup = ExitStack()

    def begin(self, chunks: int, elements: int, *, gather: bool) -> None:
        """Begin a step.

        Args:
            chunks: how many of the next chunks hold it.
            elements: how many elements they have.
            gather: whether they must be put in order first.
        """
        own = islice(self._chunks, chunks)
        self._blocks = self._gathered(own, elements) if gather else self._plain(own)
        self._current, self._done = None, 0

    def ready(self) -> int:
        """How many elements can be taken at once now; at least one, if any is left."""
        while self._current is None or self._done == self._current.patterns.size:
            dtype, block = next(self._blocks)
            self._current = Elements(dtype, block.view(_UNSIGNED[DTYPES[dtype].bits]))
            self._done = 0
        return self._current.patterns.size - self._done

    def take(self, count: int) -> Elements:
        """Take elements, no more than are ready."""
        assert self._current is not None
        taken = self._current.patterns[self._done : self._done + count]
        self._done += count
        return Elements(self._current.dtype, taken)

    def end(self) -> None:
        """End a step: read over what nobody asked for."""
        for _ in self._blocks:
            pass
        self._cleanup.close()

    def finish(self) -> None:
        """End the task, where the files are looked at once more."""
        for _ in self._chunks:
            raise AssertionError("more chunks than steps")

    def _plain(self, chunks: Iterator[tuple[Chunk, Iterator[Block]]]) -> Iterator[tuple[str, Block]]:
        for chunk, blocks in chunks:
            dequantiser = Dequantiser(self._task, chunk) if chunk.scaled else None
            for block in blocks:
                yield ("F32", dequantiser.values(block)) if dequantiser else (chunk.dtype, block)

    def _gathered(
        self, chunks: Iterator[tuple[Chunk, Iterator[Block]]], elements: int
    ) -> Iterator[tuple[str, Block]]:
        first = next(chunks)
        name, dtype = first[0].name, first[0].dtype
        rest = (pair for part in ([first], chunks) for pair in part)
        ordered: Ordered = self._cleanup.enter_context(
            in_order(rest, elements, DTYPES[dtype].bits // 8, name)
        )
        for start in range(0, elements, _ORDERED):
            yield dtype, ordered.take(start, min(start + _ORDERED, elements))
