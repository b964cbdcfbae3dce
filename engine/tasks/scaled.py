"""Codes of 8 bits with a factor a block: their values, as 32-bit floats."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.kernels.scaled import dequantise8
from engine.nouns.dtypes import DTYPES, code_table
from engine.nouns.tasks import Chunk, Scaled, Task
from engine.sketch import as_f32
from engine.storage import open_reader, read_bytes
from engine.tasks.unpack import unpack


class Dequantiser:
    """The values of the codes of one chunk, block by block.

    A value is code x factor in float32, as DeepSeek-V3 defines it (its technical report, section 3.3.2).

    Args:
        task: whose files the factors lie in.
        chunk: of codes, in C order.
    """

    def __init__(self, task: Task, chunk: Chunk) -> None:
        assert chunk.scaled is not None
        coding = DTYPES[chunk.dtype].coding
        assert coding is not None
        self._scaled: Scaled = chunk.scaled
        self._values = code_table(coding.name).value.astype(np.float32)
        self._factors = _read_factors(task, chunk.scaled.factors)
        self._next = chunk.first

    def values(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Dequantise the codes that follow those of the call before.

        Args:
            codes: (n,) uint8.

        Returns:
            (4 n,) uint8, the bytes of n float32.
        """
        rows, columns = self._scaled.matrix
        out = np.empty(codes.size, np.float32)
        block_rows, block_columns = self._scaled.block
        dequantise8(
            codes, self._values, self._factors, self._next, rows, columns, block_rows, block_columns, out
        )
        self._next += codes.size
        return out.view(np.uint8)

    def all_values(self, blocks: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Dequantise block after block."""
        return map(self.values, blocks)


def _read_factors(task: Task, factors: tuple[Chunk, ...]) -> NDArray[np.float32]:
    """Read all factors of a tensor, (m,) float32; they are few."""
    found = []
    for chunk in factors:
        file = task.files[chunk.file]
        with open_reader(file.uri) as reader:
            reader.require(file)
            data = memoryview(read_bytes(reader, chunk.offset, chunk.nbytes))
        plain = unpack(data, chunk, file.uri) if chunk.piece else (np.frombuffer(data, np.uint8),)
        found += [_as_factors(part, chunk.dtype) for part in plain]
    return np.concatenate(found)


def _as_factors(data: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if dtype in ("U8", "F8_E8M0"):  # exponents alone; OCP Microscaling 1.0, section 5.4.1
        powers = np.ldexp(np.float32(1), data.astype(np.int32) - 127).astype(np.float32)
        return np.where(data == 0xFF, np.float32(np.nan), powers)
    return as_f32(data, DTYPES[dtype])
