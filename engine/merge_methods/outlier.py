"""Averages what is small in every model, and keeps outliers as they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.kernels import merging
from engine.merge_methods.signature import Block, Blocks, Positive, Sigma


def limit_of(t: float, sigma: Sigma) -> float:
    """The smallest sigma times t: the magnitude beyond which an element is an outlier."""
    return math.inf if math.isinf(t) else t * min(sigma)


@np.errstate(all="ignore")
def outlier(base: Block, models: Blocks, *, t: Positive = 3.0, sigma: Sigma) -> Block:
    """Algorithm 2 of arXiv 2501.10661, section 5.2.

    An element of a task vector inside of [-t sigma, t sigma], sigma being the smallest of the models', is
    divided by the number of models; one outside is kept. t = 0 keeps every element, which is the sum of
    the task vectors; t = inf is the plain average. A model that is the base plus a constant has sigma 0, and
    then every element is an outlier: the algorithm says so.

    Args:
        base: (m,) float32 or float64.
        models: likewise.
        t: how many sigma.
        sigma: of each model's task vector.

    Returns:
        a block like `base`: base + (d_1 + d_2 + ...), from left to right, each step rounded.
    """
    number = base.dtype.type
    limit, count = number(limit_of(t, sigma)), number(len(models))
    total: Any = None
    for model in models:
        task = model - base
        part = np.where(np.abs(task) <= limit, task / count, task)
        total = part if total is None else total + part
    merged: Block = base + total
    return merged


def fused(base: Any, models: tuple[Any, ...], out: Any, *, t: float = 3.0, sigma: Sigma) -> None:
    """The same from patterns to patterns; see `engine.kernels.merging`."""
    with np.errstate(over="ignore"):
        limit = np.float32(limit_of(t, sigma))
    merging.outliers(base, models, limit, out)
