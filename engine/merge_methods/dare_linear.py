"""Drops elements of task vectors at random, rescales the others, and adds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.merge_methods.dare import drop, parts_of
from engine.merge_methods.signature import Block, Blocks, Share, Weight, Where
from engine.merge_methods.task_vectors import add_parts, factors_of


@np.errstate(all="ignore")
def dare_linear(
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
    """DARE (arXiv 2311.03099) before task arithmetic.

    Args:
        base: (m,) float32 or float64.
        models: likewise.
        weight: of each model's task vector.
        density: the probability that an element of it is kept.
        rescale: whether what is kept is divided by that.
        lambda_: what the merged task vector is multiplied by; it goes into the weights beforehand.
        normalize: whether to divide by the sum of the weights.
        seed: another one keeps other elements.
        stretch: where the block lies; see `draws`.

    Returns:
        a block like `base`.
    """
    factors = factors_of(weight, len(models), lambda_, normalize)
    return add_parts(base, parts_of(base, models, factors, density, rescale, seed, stretch))


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
    factors = factors_of(weight, len(models), lambda_, normalize)
    drop(base, models, factors, density, rescale, seed, stretch, out)
