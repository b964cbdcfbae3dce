"""Magnitudes near a rank, kept one by one while all are counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Near:
    """Magnitudes of 32-bit floats with some neighbouring codes, kept one by one while all are counted.

    Those without low half are left out: differences of 16-bit floats mostly are, and their number is known.

    Args:
        low: the first code, without its sign, not 0.
        high: the one behind the last.
        found: (m,) uint32, room for them.

    Attributes:
        kept: how many there are; -1 if they were too many.
    """

    def __init__(self, low: int, high: int, found: NDArray[np.uint32]) -> None:
        self._low, self._high, self._found = low, high, found
        self.kept = 0

    @property
    def place(self) -> tuple[np.uint32, np.uint32, NDArray[np.uint32], int]:
        """The first pattern, how many there are, and where they go; see `cpu.keep_near`."""
        return np.uint32(self._low << 16), np.uint32(self._high - self._low << 16), self._found, self.kept

    def low(self, code: int, number: int, rank: int) -> int | None:
        """The low half of a magnitude.

        Args:
            code: its code, without the sign.
            number: how many elements have it.
            rank: among them, from 0, the smallest.

        Returns:
            None if the code is not one of these, or they were too many.
        """
        if not self._low <= code < self._high or self.kept < 0:
            return None
        kept = self._found[: self.kept]
        found = kept[kept >> np.uint32(16) == code]
        place = rank - (number - found.size)  # those that were left out are the smallest
        return int(np.partition(found, place)[place]) & 0xFFFF if place >= 0 else 0


NOWHERE = Near(0, 0, np.empty(0, np.uint32)).place
"""Room for nothing."""
