"""Third kind of pass: the singular values of a matrix, which is in memory for it as 32-bit floats."""

from __future__ import annotations

import numpy as np

from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Outcome, Part, Task
from engine.sketch import as_f32
from engine.statistics.spectrum import Spectrum, spectrum
from engine.tasks.blocks import BlockReader
from engine.tasks.scaled import Dequantiser


class SpectrumBody:
    """Runs tasks that read one matrix, and say so in `spectrum`."""

    def __init__(self) -> None:
        self._reader = BlockReader()

    def __call__(self, task: Task) -> Outcome[Spectrum]:
        """Read the matrix and compare its singular values with those of noise."""
        matrix = task.spectrum
        assert matrix is not None
        data, done = np.empty(matrix.elements, np.float32), 0
        for chunk, blocks in self._reader.read(task):
            dtype = DTYPES["F32" if chunk.scaled else chunk.dtype]
            values = Dequantiser(task, chunk).all_values(blocks) if chunk.scaled else blocks
            for block in values:
                part = as_f32(block, dtype)
                data[done : done + part.size] = part
                done += part.size
        found = spectrum(data.reshape(matrix.rows, matrix.columns))
        return Outcome(task.key, task.nbytes, (Part(task.chunks[0].tensor, (0, matrix.elements), found),))
