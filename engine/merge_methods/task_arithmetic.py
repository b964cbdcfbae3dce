"""Adds weighted task vectors to the base."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.kernels import merging
from engine.merge_methods.signature import Block, Blocks, Weight
from engine.merge_methods.task_vectors import add_weighted, factors_of


@np.errstate(all="ignore")
def task_arithmetic(
    base: Block, models: Blocks, *, weight: Weight, lambda_: float = 1.0, normalize: bool = False
) -> Block:
    """Task arithmetic (arXiv 2212.04089).

    Args:
        base: (m,) float32 or float64.
        models: likewise.
        weight: of each model's task vector.
        lambda_: what their sum is multiplied by; it goes into the weights beforehand, in float64.
        normalize: whether to divide by the sum of the weights.

    Returns:
        a block like `base`; see `add_weighted`.
    """
    return add_weighted(base, models, factors_of(weight, len(models), lambda_, normalize))


def fused(
    base: Any,
    models: tuple[Any, ...],
    out: Any,
    *,
    weight: Weight,
    lambda_: float = 1.0,
    normalize: bool = False,
) -> None:
    """The same from patterns to patterns; see `engine.kernels.merging`."""
    factors = np.array(factors_of(weight, len(models), lambda_, normalize), np.float32)
    merging.weighted(base, models, factors, out)
