"""What `dare_linear` and `dare_ties` have in common: dropping at random, and rescaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.kernels import agreeing
from engine.merge_methods.random_masks import draws, key_of
from engine.merge_methods.signature import Block, Blocks, Each
from engine.merge_methods.task_vectors import Agreement, each, elected, masked
from engine.nouns.merging import Stretch


def _rescaled(factors: Sequence[float], densities: Sequence[float], rescale: bool) -> list[float]:
    return [f / d if rescale and d else f for f, d in zip(factors, densities, strict=True)]


def parts_of(
    base: Block,
    models: Blocks,
    factors: Sequence[float],
    density: Each,
    rescale: bool,
    seed: int,
    stretch: Stretch,
) -> list[Block]:
    """Keep each element of a task vector with probability `density`, divided by it if wanted."""
    densities = each(density, len(models))
    scaled = _rescaled(factors, densities, rescale)
    parts = []
    for k, (model, factor, share) in enumerate(zip(models, scaled, densities, strict=True)):
        keep = draws(seed, k, stretch, base.size) < share
        parts.append(masked(model - base, keep, factor))
    return parts


def drop(
    base: Any,
    models: tuple[Any, ...],
    factors: Sequence[float],
    density: Each,
    rescale: bool,
    seed: int,
    stretch: Stretch,
    out: Any,
    agreement: Agreement | None = None,
) -> None:
    """Merge from patterns to patterns what is kept."""
    densities = each(density, len(models))
    with np.errstate(over="ignore"):
        scaled = np.array(_rescaled(factors, densities, rescale), np.float32)
    weights, scale, elect, normalize = elected(agreement, len(models))
    agreeing.dropped(
        base,
        models,
        scaled,
        np.array([key_of(seed, k, stretch.tensor) for k in range(len(models))], np.uint64),
        np.array([math.ceil(d * 2.0**53) for d in densities], np.uint64),  # a draw u keeps if u / 2**53 < d
        np.uint64(stretch.start),
        weights,
        scale,
        elect,
        normalize,
        out,
    )
