"""Goes from the base towards the average of the models, the farther the more they agree."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np

from engine.kernels import merging
from engine.merge_methods.signature import Block, TaskInner, Two
from engine.merge_methods.task_vectors import add_weighted


def ratio_of(task_inner: TaskInner) -> float:
    """How far to go: n c / (1 + (n - 1) c), c being the mean cosine between two task vectors.

    The cosine with a task vector that is 0 counts as 0. Task vectors of which c is negative agree in nothing,
    and the ratio is 0, where the formula would go the other way.

    Args:
        task_inner: (n, n) inner products of the task vectors, n >= 2.

    Returns:
        from 0 to 1; NaN if a cosine is not finite.
    """
    count = len(task_inner)
    cosines = []
    for i, j in combinations(range(count), 2):
        norms = math.sqrt(task_inner[i, i]) * math.sqrt(task_inner[j, j])
        cosines.append(float(task_inner[i, j]) / norms if norms != 0 else 0.0)
    known = all(map(math.isfinite, cosines))  # products of float64 may be too large, and of both signs
    mean = math.fsum(cosines) / len(cosines) if known else math.nan
    mean = min(mean, 1.0) if mean > 0 or math.isnan(mean) else 0.0
    return count * mean / (1 + (count - 1) * mean)


@np.errstate(all="ignore")
def model_stock(base: Block, models: Two, *, task_inner: TaskInner) -> Block:
    """Model Stock (arXiv 2403.19522), the ratio of a whole tensor at a time.

    Args:
        base: (m,) float32 or float64.
        models: likewise, two or more.
        task_inner: (n, n) inner products of the whole task vectors.

    Returns:
        a block like `base`; see `add_weighted`.
    """
    return add_weighted(base, models, [ratio_of(task_inner) / len(models)] * len(models))


def fused(base: Any, models: tuple[Any, ...], out: Any, *, task_inner: TaskInner) -> None:
    """The same from patterns to patterns; see `engine.kernels.merging`."""
    factors = np.full(len(models), ratio_of(task_inner) / len(models), np.float32)
    merging.weighted(base, models, factors, out)
