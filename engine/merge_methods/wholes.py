"""Numbers of whole tensors that methods need.

Inner products come from blocks in any order. Sigma and magnitudes by rank of long tensors come from their
sketches (`engine.statistics`); here they are taken from a task vector that is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.reals import dot
from engine.merge_methods.registry import Method
from engine.merge_methods.signature import Block, Blocks
from engine.nouns.merging import Need

SPAN = 1 << 16
"""Elements whose products are added up by themselves."""


class InnerProducts:
    """Inner products of n tensors, from blocks in any order.

    Products of float32 are exact in float64; those of SPAN elements are added up there in a fixed order, and
    the sums of all spans as if without rounding, so that the order of the blocks never matters.

    Args:
        count: how many tensors.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._sums: list[NDArray[np.float64]] = []

    def add(self, blocks: Blocks, start: int) -> None:
        """Add a block of every tensor.

        Args:
            blocks: (m,) float32 or float64 each.
            start: index of the first element, a multiple of SPAN; only a tensor's last block may end at
                what is no multiple of it.

        Raises:
            ValueError: the block starts elsewhere.
        """
        if start % SPAN:
            raise ValueError(f"a block at {start} is not at a multiple of {SPAN}")
        for first in range(0, blocks[0].size, SPAN):
            parts = [b[first : first + SPAN] for b in blocks]
            self._sums.append(_products(parts))

    def state(self) -> NDArray[np.float64]:
        """(spans, n, n) float64, which `merge` takes and which may travel."""
        return np.array(self._sums).reshape(-1, self._count, self._count)

    def join(self, state: NDArray[np.float64]) -> None:
        """Add what was added up elsewhere."""
        self._sums.extend(state)

    def total(self) -> NDArray[np.float64]:
        """(n, n) float64; products that are not finite count as 0."""
        spans = self.state()
        total = np.empty((self._count, self._count))
        for i in range(self._count):
            for j in range(self._count):
                total[i, j] = _sum(spans[:, i, j])
        return total


def _products(blocks: Blocks) -> NDArray[np.float64]:
    found = np.empty((len(blocks), len(blocks)))
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks[: i + 1]):
            found[i, j] = found[j, i] = dot(a, b)
    return found


def _sum(terms: NDArray[np.float64]) -> float:
    """Sum without rounding between; fsum refuses infinities of both signs, and sums that are too large."""
    with np.errstate(all="ignore"):
        return math.fsum(terms) if math.isfinite(float(np.abs(terms).sum())) else float(terms.sum())


def sigma_of(task: Block) -> float:
    """Population standard deviation of the finite elements, in float64; 0 where there are none."""
    finite = task[np.isfinite(task)].astype(np.float64)
    with np.errstate(all="ignore"):
        return float(finite.std()) if finite.size else 0.0


def magnitudes_at(task: Block, ranks: tuple[int, int] | None) -> tuple[float, float]:
    """Find the magnitudes at two ranks, NaN being the largest; for None (inf, inf): nothing finite."""
    if ranks is None:
        return math.inf, math.inf
    sizes = np.partition(np.abs(task), ranks)
    low, high = (float(sizes[rank]) for rank in ranks)
    return (math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def measure(method: Method, base: Block | None, models: Blocks, parameters: dict[str, Any]) -> dict[str, Any]:
    """What a method must know of whole tensors that are in memory.

    Args:
        method: the method.
        base: the whole base, (m,) float32 or float64.
        models: the whole models likewise.
        parameters: of the method.

    Returns:
        arguments for the method, by need.
    """
    found: dict[str, Any] = {}
    with np.errstate(all="ignore"):
        tasks: Sequence[Block] = [] if base is None else [model - base for model in models]
    if Need.SIGMA in method.needs:
        found["sigma"] = [sigma_of(task) for task in tasks]
    if Need.BAND in method.needs:
        ranks = method.ranks_of(models[0].size, len(models), parameters)
        found["band"] = [magnitudes_at(task, r) for task, r in zip(tasks, ranks, strict=True)]
    if Need.INNER in method.needs and base is not None:
        found["inner"] = _inner([base, *models])
    if Need.TASK_INNER in method.needs:
        found["task_inner"] = _inner(tasks)
    return found


def _inner(blocks: Blocks) -> NDArray[np.float64]:
    sums = InnerProducts(len(blocks))
    sums.add(blocks, 0)
    return sums.total()
