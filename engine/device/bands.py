"""Rows, columns and neighbours of what travels to a GPU anyway, measured there while it is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.bands.gathering import Gathered
from engine.bands.known import Bands, Loose, Values
from engine.device.pairs import ValueTables, kind_of
from engine.nouns.dtypes import Dtype
from engine.nouns.matrices import Matrix
from engine.sketch import as_values

if TYPE_CHECKING:
    from engine.kernels.cuda.rows import Strips

F64 = NDArray[np.float64]


class GpuBands:
    """Measures consecutive elements of a matrix, from the first of a band on, as they travel in blocks.

    Args:
        matrix: what they are of.
        first: index of the first.
        dtype: theirs, F32 for those that travel as F32.
        tables: values of 8-bit dtypes on the device.
        report: is told when the GPU's memory does not suffice.
    """

    def __init__(
        self, matrix: Matrix, first: int, dtype: Dtype, tables: ValueTables, report: Callable[[str], None]
    ) -> None:
        self._matrix, self._next, self._dtype, self._tables = matrix, first, dtype, tables
        self._gathered, self._report = Gathered(matrix), report

    def begin(self, data: Any) -> Strips | None:
        """Begin to measure a block on the device, (bytes,) uint8; None where the CPU has to."""
        from engine.kernels.cuda.claims import tried
        from engine.kernels.cuda.rows import measure_rows

        row = self._matrix.columns * self._dtype.bits // 8
        data = data[: data.numel() // row * row]
        if not data.numel():
            return None
        sides = self._matrix.columns, self._matrix.band
        kind, table = kind_of(self._dtype), self._tables.of
        found = tried(lambda: measure_rows(data, kind, table(self._dtype), *sides))
        if found is None:
            self._report(f"no memory left on {data.device}: rows and columns are measured on the CPU")
        return found

    def sent(self, block: NDArray[np.uint8], strips: list[Strips | None]) -> Callable[[], None]:
        """Note that a block is under way.

        Args:
            block: it, in the host's memory.
            strips: where `begin` puts what it gives.

        Returns:
            what must be called when the work is done, and before the block is filled again.
        """
        first, self._next = self._next, self._next + block.size * 8 // self._dtype.bits
        return lambda: self._take(first, as_values(block, self._dtype), strips[0])

    def _take(self, first: int, values: Values, strips: Strips | None) -> None:
        """Take what was found of a block: of its whole bands, and the elements behind them as they are."""
        matrix, found = self._matrix, None if strips is None else _Found(strips)
        band = first // matrix.start(1) if matrix.bands > 1 else 0
        done = row = 0
        while band < matrix.bands and done < values.size and not self._gathered.broken:
            start, stop = matrix.start(band), matrix.start(band + 1)
            part = values[done : done + stop - start]
            rows = part.size // matrix.columns
            if part.size < stop - start:
                self._gathered.take_loose(Loose(start, part))
            elif found is None:
                self._gathered.measure(band, part)
            else:
                self._gathered.take(band, part, *found.of(row, rows, row // matrix.band))
            done, row, band = done + part.size, row + rows, band + 1

    def bands(self) -> Bands:
        """What was found out."""
        return self._gathered.bands(())


class _Found:
    """What a device has measured, brought to the host; strips are added up from left to right."""

    def __init__(self, strips: Strips) -> None:
        self._of_rows = _added(strips.of_rows.cpu().numpy())
        self._of_columns: NDArray[np.float32] = strips.of_columns.cpu().numpy()
        self._of_pairs = _added(np.moveaxis(strips.of_pairs.cpu().numpy(), 1, 2))

    def of(self, row: int, rows: int, number: int) -> tuple[F64, F64, float, float]:
        """Of a band: sums of rows, of columns, and of the products of neighbours; see `Gathered.take`."""
        of_rows = self._of_rows[:, row : row + rows].copy()
        across, down = self._of_pairs[number].tolist()
        return of_rows, self._of_columns[number].astype(np.float64), across, down


def _added(strips: NDArray[np.float64]) -> F64:
    """Add up (..., strips, n) to (..., n), beginning with 0 as the CPU does."""
    total = np.zeros((*strips.shape[:-2], strips.shape[-1]))
    for number in range(strips.shape[-2]):
        total += strips[..., number, :]
    return total
