"""What a second pass over 32-bit floats adds to their sketch (`--exact`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Lows = tuple[NDArray[np.uint16], U64]


@dataclass(frozen=True, slots=True)
class Refinement:
    """Integers again, so that parts of a tensor add up in any order.

    Attributes:
        lows: for each refined code the low halves that occur, increasing, and how often.
        cubes: for every code with a low half other than 0 the sum of the cubes of its low halves.
        fourths: likewise of the fourth powers.
    """

    lows: dict[int, Lows]
    cubes: dict[int, int]
    fourths: dict[int, int]

    def central_sums(
        self, codes: NDArray[np.uint16], n: U64, low_sum: U64, square_sum: U64
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Third and fourth central sums of the low halves of each code, by whole numbers.

        Args:
            codes: (k,) uint16.
            n: (k,) uint64, their counts.
            low_sum: (k,) uint64, sums of the low halves.
            square_sum: (k,) uint64, sums of their squares.

        Returns:
            two (k,) float64, in units of the low half to the third and fourth power.
        """
        third, fourth = np.zeros(len(codes)), np.zeros(len(codes))
        rows = zip(codes.tolist(), n.tolist(), low_sum.tolist(), square_sum.tolist(), strict=True)
        for i, (code, m, s1, s2) in enumerate(rows):
            s3, s4 = self.cubes.get(code, 0), self.fourths.get(code, 0)
            third[i] = (m * m * s3 - 3 * m * s1 * s2 + 2 * s1**3) / (m * m)
            fourth[i] = (m**3 * s4 - 4 * m * m * s1 * s3 + 6 * m * s1 * s1 * s2 - 3 * s1**4) / m**3
        return third, fourth


def combine_refinements(*parts: Refinement) -> Refinement:
    """Add up the refinements of the parts of one tensor."""
    lows: dict[int, U64] = {}
    cubes: dict[int, int] = {}
    fourths: dict[int, int] = {}
    for part in parts:
        for code, (low, n) in part.lows.items():
            lows.setdefault(code, np.zeros(65536, np.uint64))[low] += n
        for sums, more in ((cubes, part.cubes), (fourths, part.fourths)):
            for code, total in more.items():
                sums[code] = sums.get(code, 0) + total
    return Refinement({c: _sparse(t) for c, t in lows.items()}, cubes, fourths)


def _sparse(table: U64) -> Lows:
    low = np.flatnonzero(table)
    return low.astype(np.uint16), table[low]


def from_tables(codes: tuple[int, ...], low_counts: U64, powers: U64) -> Refinement:
    """Read the tables of `engine.kernels.refining.refine32`.

    Args:
        codes: the refined code of each row of `low_counts`.
        low_counts: (k, 65536) uint64.
        powers: (65536, 4) uint64, limbs of the cubes' and the fourth powers' sums.
    """
    live = np.flatnonzero(powers.any(axis=1)).tolist()
    cubes = {c: (int(powers[c, 1]) << 64) + int(powers[c, 0]) for c in live}
    fourths = {c: (int(powers[c, 3]) << 64) + int(powers[c, 2]) for c in live}
    return Refinement({c: _sparse(row) for c, row in zip(codes, low_counts, strict=True)}, cubes, fourths)
