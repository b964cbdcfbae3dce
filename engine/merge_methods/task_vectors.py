"""What methods that work on task vectors have in common: their parts, and how these are put together.

A part is a task vector, model - base, times a factor for the model or for each element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import agreeing
from engine.merge_methods.signature import Block, Blocks, Each

_LEAST_SUM = 1e-8  # a smaller sum of weights divides nothing


def each(value: Each, count: int) -> tuple[float, ...]:
    """One number for each model: the given ones, or the given one for all.

    Raises:
        ValueError: there are as many as of something else.
    """
    if isinstance(value, (int, float)):
        return (float(value),) * count
    if len(value) != count:
        raise ValueError(f"{len(value)} numbers for {count} models")
    return tuple(map(float, value))


def factors_of(weight: Each, count: int, scale: float, normalize: bool) -> tuple[float, ...]:
    """What each task vector is multiplied by: weight * scale, divided by the sum of the weights if wanted.

    A sum closer to 0 than 1e-8 divides nothing.
    """
    weights = each(weight, count)
    total = math.fsum(weights)
    divisor = total if normalize and abs(total) >= _LEAST_SUM else 1.0
    return tuple(w * scale / divisor for w in weights)


def add_weighted(base: Block, models: Blocks, factors: Sequence[float]) -> Block:
    """Form base + (f_1 (model_1 - base) + f_2 (model_2 - base) + ...), from left to right, each step rounded.

    Args:
        base: (m,) float32 or float64.
        models: likewise, n >= 1 of them.
        factors: one for each, rounded to that dtype.
    """
    number = base.dtype.type
    total: Block = (models[0] - base) * number(factors[0])
    for model, factor in zip(models[1:], factors[1:], strict=True):
        total += (model - base) * number(factor)
    return base + total


def trimmed(task: Block, factor: float, band: tuple[float, float]) -> Block:
    """The part of a task vector of which only magnitudes from the band's least to its largest are kept.

    Magnitudes are compared in float32, in which they were counted.
    """
    number = task.dtype.type
    size = np.abs(task).astype(np.float32)
    beyond = (size < np.float32(band[0])) | (size > np.float32(band[1]))
    return task * np.where(beyond, number(0), number(factor))


def add_parts(base: Block, parts: Sequence[Block]) -> Block:
    """Form base + (part_1 + part_2 + ...), from left to right, each step rounded."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return base + total


def put_together(base: Block, parts: Sequence[Block], weight: Each, scale: float, normalize: bool) -> Block:
    """Form base + the parts of the models that agree on an element's sign.

    That is the sign of the sum of all parts, + where that is 0. A part that is 0 agrees with none
    (arXiv 2306.01708, section 3: elect, and disjoint merge).

    Args:
        base: (m,) float32 or float64.
        parts: likewise, one for each model.
        weight: of each model.
        scale: what comes out is multiplied by; after the election, which a rounding more could sway where
            the sum is 0.
        normalize: whether to divide by the sum of the weights of those that agree, element by element.
    """
    total, number = np.empty_like(base), base.dtype.type
    weights = np.array(each(weight, len(parts)), base.dtype)
    agreeing.agree(np.stack(parts), weights, number(scale), normalize, total)
    merged: Block = base + total
    return merged


def masked(task: Block, keep: NDArray[np.bool_], factor: Any) -> Block:
    """The part of a task vector of which only some elements are kept.

    Args:
        task: (m,) float32 or float64.
        keep: (m,) bool.
        factor: of all that are kept, or (m,) float64.
    """
    part: Block = task * np.where(keep, factor, 0.0).astype(task.dtype)
    return part


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the models that agree are put together; see `put_together`."""

    weight: Each
    scale: float
    normalize: bool


@np.errstate(over="ignore")
def elected(agreement: Agreement | None, count: int) -> tuple[Any, Any, bool, bool]:
    """Weights, scale, whether to elect and whether to normalise, as `engine.kernels.agreeing` takes them."""
    if agreement is None:
        return np.ones(count, np.float32), np.float32(1), False, False
    weights = np.array(each(agreement.weight, count), np.float32)
    return weights, np.float32(agreement.scale), True, agreement.normalize


@np.errstate(over="ignore")
def trim(
    base: Any,
    models: tuple[Any, ...],
    factors: Sequence[float],
    band: Sequence[tuple[float, float]],
    out: Any,
    agreement: Agreement | None = None,
) -> None:
    """Merge from patterns to patterns what lies in a band."""
    weights, scale, elect, normalize = elected(agreement, len(models))
    agreeing.trimmed(
        base,
        models,
        np.array(factors, np.float32),
        np.array(band, np.float32).reshape(-1, 2),
        weights,
        scale,
        elect,
        normalize,
        out,
    )
