"""Bands of elements that come block by block."""

from __future__ import annotations

import numpy as np

from engine.bands.gathering import Gathered
from engine.bands.known import Bands, Loose, Values
from engine.nouns.matrices import Matrix


class BandCounter:
    """Measures consecutive elements of a matrix, block by block.

    Args:
        matrix: what they are of.
        first: index of the first.
    """

    def __init__(self, matrix: Matrix, first: int) -> None:
        self._gathered = Gathered(matrix)
        self._matrix, self._next = matrix, first
        self._begun = first  # of what lies in the buffer
        self._buffer: Values | None = None

    def add(self, values: Values) -> None:
        """Add the elements that follow those before; see `Values`."""
        done, matrix = 0, self._matrix
        while done < values.size and not self._gathered.broken:
            band = self._next // (matrix.band * matrix.columns)
            start, stop = matrix.start(band), matrix.start(band + 1)
            part = values[done : done + stop - self._next]
            if self._next == start and part.size == stop - start:
                self._gathered.measure(band, part)
                self._begun = stop
            else:
                self._keep(part, start, stop)
            done += part.size
            self._next += part.size

    def _keep(self, part: Values, start: int, stop: int) -> None:
        """Put elements by until their band is full."""
        if self._buffer is None:
            self._buffer = np.empty(self._matrix.band * self._matrix.columns, part.dtype)
        reached = self._next + part.size
        self._buffer[self._next - start : reached - start] = part
        if reached == stop:
            self._gathered.take_loose(Loose(self._begun, self._buffer[self._begun - start : stop - start]))
            self._begun = stop

    def bands(self) -> Bands:
        """What was found out."""
        if self._buffer is not None and self._begun < self._next and not self._gathered.broken:
            start = self._begun - self._begun % (self._matrix.band * self._matrix.columns)
            rest = self._buffer[self._begun - start : self._next - start]
            self._gathered.take_loose(Loose(self._begun, rest))
        return self._gathered.bands(())
