"""Bands that come one by one, or in parts of a matrix, put together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.bands.known import F64, Bands, Loose, Node, Run, Values, as_units
from engine.bands.measuring import dot, is_precise, measure_band, square_again
from engine.nouns.matrices import Matrix


class Gathered:
    """What is being put together.

    Args:
        matrix: what it is of.
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.across = self.down = 0
        self.broken = False
        self._runs: list[Run] = []
        self._loose: list[Loose] = []

    def measure(self, band: int, values: Values) -> None:
        """Take a whole band, and measure it."""
        found = measure_band(self.matrix, values)
        if found is None:
            self.broken = True
        else:
            self._put(band, values, *found)

    def take(
        self, band: int, values: Values, of_rows: F64, of_columns: F64, across: float, down: float
    ) -> None:
        """Take a whole band that was measured in float32 elsewhere; see `engine.kernels.rows`."""
        if is_precise(of_rows, values):
            square_again(of_rows, values)
            self._put(band, values, of_rows, of_columns, across, down)
        else:
            self.measure(band, values)

    def _put(
        self, band: int, values: Values, of_rows: F64, of_columns: F64, across: float, down: float
    ) -> None:
        self.across += as_units(across)
        self.down += as_units(down)
        columns = self.matrix.columns
        top, bottom = values[:columns].copy(), values[-columns:].copy()
        self._runs.append(Run(band, band + 1, of_rows, top, bottom, (Node(0, band, of_columns),)))
        if len(self._runs) > self.matrix.waiting:
            self._join()

    def take_loose(self, loose: Loose) -> None:
        """Take elements of one band, behind those that were taken before."""
        matrix = self.matrix
        band = loose.first // (matrix.band * matrix.columns)
        start, stop = matrix.start(band), matrix.start(band + 1)
        before = self._loose[-1] if self._loose else None
        if before is not None and before.first + before.values.size == loose.first > start:
            self._loose.pop()
            loose = Loose(before.first, np.concatenate([before.values, loose.values]))
        if loose.values.size == stop - start:
            self.measure(band, loose.values)
        else:
            self._loose.append(Loose(loose.first, loose.values.copy()))

    def bands(self, more: tuple[Run, ...]) -> Bands:
        """What is known, with some runs more."""
        if self.broken:
            return Bands(self.matrix, broken=True)
        self._runs += more
        self._join()
        return Bands(self.matrix, self.across, self.down, tuple(self._runs), tuple(self._loose))

    def _join(self) -> None:
        """Join the runs that touch."""
        groups: list[list[Run]] = []
        for run in sorted(self._runs, key=lambda r: r.first):
            if groups and groups[-1][-1].stop == run.first:
                self.down += as_units(dot(groups[-1][-1].bottom, run.top))
                groups[-1].append(run)
            else:
                groups.append([run])
        self._runs = [_joined(group) for group in groups]


def combine_bands(a: Bands, b: Bands) -> Bands:
    """Put together what is known of different parts of one matrix. Associative and commutative.

    Raises:
        ValueError: of different matrices.
    """
    if a.matrix != b.matrix:
        raise ValueError(f"cannot combine bands of {a.matrix} and {b.matrix}")
    if a.broken or b.broken:
        return Bands(a.matrix, broken=True)
    gathered = Gathered(a.matrix)
    for part in (a, b):
        gathered.across += part.across
        gathered.down += part.down
    for loose in sorted((*a.loose, *b.loose), key=lambda x: x.first):
        gathered.take_loose(loose)
    return gathered.bands((*a.runs, *b.runs))


def _joined(runs: list[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    of_rows = np.concatenate([r.of_rows for r in runs], axis=1)
    nodes = _grown(node for r in runs for node in r.nodes)
    return Run(runs[0].first, runs[-1].stop, of_rows, runs[0].top, runs[-1].bottom, nodes)


def _grown(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Add up the halves of the tree of which both are there."""
    found: dict[tuple[int, int], F64] = {}
    for node in nodes:
        level, index, of_columns = node.level, node.index, node.of_columns
        while (other := found.pop((level, index ^ 1), None)) is not None:
            of_columns = other + of_columns  # addition of two does commute
            level, index = level + 1, index >> 1
        found[level, index] = of_columns
    ordered = sorted(found, key=lambda key: key[1] << key[0])
    return tuple(Node(*key, found[key]) for key in ordered)
