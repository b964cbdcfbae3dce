"""Trims task vectors, elects a sign for each element, and merges the models that agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.merge_methods.signature import Band, Block, Blocks, Each, Share, Weight
from engine.merge_methods.task_vectors import Agreement, each, put_together, trim, trimmed


def ranks(size: int, count: int, *, density: Each = 1.0) -> list[tuple[int, int] | None]:
    """Which magnitudes of each task vector are kept, by their ranks from 0, the smallest, to size - 1.

    Args:
        size: elements of the tensor.
        count: models.
        density: the share that is kept: int(density * size) elements, the largest.

    Returns:
        for each model the first rank and the last, None if nothing is kept.
    """
    kept = [int(d * size) for d in each(density, count)]
    return [(size - k, size - 1) if k else None for k in kept]


@np.errstate(all="ignore")
def ties(
    base: Block,
    models: Blocks,
    *,
    weight: Weight,
    density: Share = 1.0,
    lambda_: float = 1.0,
    normalize: bool = True,
    band: Band,
) -> Block:
    """TIES (arXiv 2306.01708): trim, elect sign, disjoint merge.

    Args:
        base: (m,) float32 or float64.
        models: likewise.
        weight: of each model's task vector.
        density: the share of each task vector that is kept, the largest magnitudes; what is as large as the
            smallest that is kept is kept too.
        lambda_: what the merged task vector is multiplied by.
        normalize: whether to divide by the sum of the weights of the models that agree.
        band: for each model the smallest and the largest magnitude that are kept.

    Returns:
        a block like `base`; see `put_together`.
    """
    del density  # the band says it
    weights = each(weight, len(models))
    parts = [trimmed(m - base, w, b) for m, w, b in zip(models, weights, band, strict=True)]
    return put_together(base, parts, weight, lambda_, normalize)


def fused(
    base: Any,
    models: tuple[Any, ...],
    out: Any,
    *,
    weight: Weight,
    density: Share = 1.0,
    lambda_: float = 1.0,
    normalize: bool = True,
    band: Band,
) -> None:
    """The same from patterns to patterns; see `engine.kernels.agreeing`."""
    del density
    trim(base, models, each(weight, len(models)), band, out, Agreement(weight, lambda_, normalize))
