"""Drops the smallest and the largest elements of task vectors, and adds the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.merge_methods.signature import Band, Block, Blocks, Each, Share, Weight
from engine.merge_methods.task_vectors import add_parts, each, factors_of, trim, trimmed


def ranks(size: int, count: int, *, density: Each = 1.0, gamma: Each = 0.01) -> list[tuple[int, int] | None]:
    """Which magnitudes of each task vector are kept, by their ranks from 0, the smallest, to size - 1.

    int(gamma * size) of the largest are dropped, and as many of the smallest as leave int(density * size).
    Where that would be fewer than none, fewer of the largest are dropped. A density of 1 keeps all.

    Args:
        size: elements of the tensor.
        count: models.
        density: the share that is kept.
        gamma: the share of the largest.

    Returns:
        for each model the first rank and the last, None if nothing is kept.
    """
    found: list[tuple[int, int] | None] = []
    for share, largest in zip(each(density, count), each(gamma, count), strict=True):
        kept = int(share * size)
        first = max(size - kept - int(largest * size), 0)
        found.append((first, first + kept - 1) if kept else None)
    return found


@np.errstate(all="ignore")
def breadcrumbs(
    base: Block,
    models: Blocks,
    *,
    weight: Weight,
    density: Share = 1.0,
    gamma: Share = 0.01,
    lambda_: float = 1.0,
    normalize: bool = False,
    band: Band,
) -> Block:
    """Model breadcrumbs (arXiv 2312.06795).

    Args:
        base: (m,) float32 or float64.
        models: likewise.
        weight: of each model's task vector.
        density: the share of each task vector that is kept.
        gamma: the share of the largest magnitudes that is dropped; the paper's beta.
        lambda_: what the merged task vector is multiplied by; it goes into the weights beforehand.
        normalize: whether to divide by the sum of the weights.
        band: for each model the smallest and the largest magnitude that are kept; what is as large as either
            is kept too.

    Returns:
        a block like `base`.
    """
    del density, gamma  # the band says it
    factors = factors_of(weight, len(models), lambda_, normalize)
    return add_parts(base, [trimmed(m - base, f, b) for m, f, b in zip(models, factors, band, strict=True)])


def fused(
    base: Any,
    models: tuple[Any, ...],
    out: Any,
    *,
    weight: Weight,
    density: Share = 1.0,
    gamma: Share = 0.01,
    lambda_: float = 1.0,
    normalize: bool = False,
    band: Band,
) -> None:
    """The same from patterns to patterns; see `engine.kernels.agreeing`."""
    del density, gamma
    trim(base, models, factors_of(weight, len(models), lambda_, normalize), band, out)
