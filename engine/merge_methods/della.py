"""Drops elements of task vectors at random, small ones more often, and merges the models that agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.merge_methods.random_masks import draws
from engine.merge_methods.signature import Block, Blocks, Each, Rows, Share, Weight
from engine.merge_methods.task_vectors import each, masked, put_together

_COLUMN = 0xFFFFFFFF


def check(count: int, columns: int, *, density: Each = 1.0, epsilon: Each = 0.15, **others: object) -> None:
    """Refuse probabilities that are none.

    Args:
        count: models.
        columns: elements of a row.
        density: of each model.
        epsilon: likewise.
        others: parameters that have no say in it.

    Raises:
        ConfigError: density -+ epsilon is not inside of (0, 1).
    """
    del others
    for share, width in zip(each(density, count), each(epsilon, count), strict=True):
        _is_even(columns, share, width)


def _is_even(columns: int, density: float, epsilon: float) -> bool:
    """Whether all elements of a row are as likely to be kept; a range of likelihoods must be one."""
    if density in (0, 1) or columns < 2:
        return True
    if not 0 < density - epsilon <= density + epsilon < 1:
        raise ConfigError(f"density {density:g} -+ epsilon {epsilon:g} leaves the range from 0 to 1")
    return False


def probabilities(task: Block, columns: int, density: float, epsilon: float) -> NDArray[np.float64]:
    """How likely each element is kept: density - epsilon for a row's smallest, + epsilon for its largest.

    In between it goes by rank; of equal magnitudes the later is the larger. A row of one element has
    `density`, and so has every element where `density` is 0 or 1.

    Args:
        task: (m,) float32 or float64, whole rows.
        columns: elements of a row.
        density: the mean probability.
        epsilon: half the width of the range.

    Returns:
        (m,) float64.

    Raises:
        ConfigError: the range is not inside of (0, 1).
    """
    if _is_even(columns, density, epsilon):
        return np.full(task.size, float(density))
    order = _order(np.abs(task).reshape(-1, columns))
    by_rank = (density - epsilon) + np.arange(columns) / (columns - 1) * 2 * epsilon
    found = np.empty(order.shape)
    np.put_along_axis(found, order, np.broadcast_to(by_rank, order.shape), axis=1)
    return found.reshape(-1)


def _order(sizes: Block) -> NDArray[Any]:
    """Columns of each row by increasing magnitude, of equal ones the first first.

    Sorting whole numbers, the patterns of float32 above the columns, is several times faster than sorting
    columns by floats.
    """
    if sizes.dtype != np.float32 or sizes.shape[1] > _COLUMN:
        return np.argsort(sizes, axis=1, kind="stable")
    keys = sizes.view(np.uint32).astype(np.uint64) << np.uint64(32) | np.arange(
        sizes.shape[1], dtype=np.uint64
    )
    keys.sort(axis=1)
    return (keys & np.uint64(_COLUMN)).astype(np.int64)


@np.errstate(all="ignore")
def della(
    base: Block,
    models: Blocks,
    *,
    weight: Weight,
    density: Share = 1.0,
    epsilon: Share = 0.15,
    rescale: bool = True,
    lambda_: float = 1.0,
    normalize: bool = True,
    seed: int = 0,
    stretch: Rows,
) -> Block:
    """DELLA (arXiv 2406.11617): drop by rank of magnitude, elect sign, disjoint merge.

    Args:
        base: (m,) float32 or float64, whole rows.
        models: likewise.
        weight: of each model's task vector.
        density: how likely an element of it is kept, on the average.
        epsilon: half the width of the range of probabilities (the paper's is the whole width).
        rescale: whether what is kept is divided by its probability.
        lambda_: what the merged task vector is multiplied by.
        normalize: whether to divide by the sum of the weights of the models that agree.
        seed: another one keeps other elements.
        stretch: where the block lies; see `draws`.

    Returns:
        a block like `base`; see `put_together`.

    Raises:
        ConfigError: density -+ epsilon is not inside of (0, 1).
        ValueError: the block is not whole rows.
    """
    if stretch.start % stretch.columns or base.size % stretch.columns:
        raise ValueError(f"{base.size} elements from {stretch.start} on are no rows of {stretch.columns}")
    shares = zip(
        each(weight, len(models)), each(density, len(models)), each(epsilon, len(models)), strict=True
    )
    parts = []
    for k, (model, (own, share, width)) in enumerate(zip(models, shares, strict=True)):
        task = model - base
        likely = probabilities(task, stretch.columns, share, width)
        keep = draws(seed, k, stretch, base.size) < likely
        parts.append(masked(task, keep, own / likely if rescale else own))
    return put_together(base, parts, weight, lambda_, normalize)
