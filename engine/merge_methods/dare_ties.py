"""Drops elements of task vectors at random, rescales the others, and merges the models that agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.merge_methods.dare import drop, parts_of
from engine.merge_methods.signature import Block, Blocks, Share, Weight, Where
from engine.merge_methods.task_vectors import Agreement, each, put_together


@np.errstate(all="ignore")
def dare_ties(
    base: Block,
    models: Blocks,
    *,
    weight: Weight,
    density: Share = 1.0,
    rescale: bool = True,
    lambda_: float = 1.0,
    normalize: bool = False,
    seed: int = 0,
    stretch: Where,
) -> Block:
    """DARE (arXiv 2311.03099) in place of the trimming of TIES (arXiv 2306.01708).

    Args:
        base: (m,) float32 or float64.
        models: likewise.
        weight: of each model's task vector.
        density: the probability that an element of it is kept.
        rescale: whether what is kept is divided by that.
        lambda_: what the merged task vector is multiplied by.
        normalize: whether to divide by the sum of the weights of the models that agree.
        seed: another one keeps other elements.
        stretch: where the block lies; see `draws`.

    Returns:
        a block like `base`; see `put_together`.
    """
    parts = parts_of(base, models, each(weight, len(models)), density, rescale, seed, stretch)
    return put_together(base, parts, weight, lambda_, normalize)


def fused(
    base: Any,
    models: tuple[Any, ...],
    out: Any,
    *,
    weight: Weight,
    density: Share = 1.0,
    rescale: bool = True,
    lambda_: float = 1.0,
    normalize: bool = False,
    seed: int = 0,
    stretch: Where,
) -> None:
    """The same from patterns to patterns; see `engine.kernels.agreeing`."""
    agreement = Agreement(weight, lambda_, normalize)
    drop(base, models, each(weight, len(models)), density, rescale, seed, stretch, out, agreement)
