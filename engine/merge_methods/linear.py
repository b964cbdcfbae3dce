"""Averages weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.kernels import floats, merging
from engine.merge_methods.signature import Block, Blocks, Weight
from engine.merge_methods.task_vectors import add_weighted, each


def _factors(weight: Weight, count: int, normalize: bool) -> tuple[float, ...]:
    weights = each(weight, count)
    total = math.fsum(weights) if normalize else 1.0
    if abs(total) < 1e-8:
        raise ConfigError("the weights add up to 0, by which nothing can be divided")
    return tuple(w / total for w in weights)


def check(count: int, columns: int, *, weight: Weight, normalize: bool = True) -> None:
    """Refuse weights by whose sum nothing can be divided; arguments and error as for `linear`."""
    del columns
    _factors(weight, count, normalize)


@np.errstate(all="ignore")
def linear(models: Blocks, *, weight: Weight, normalize: bool = True) -> Block:
    """The average of models, or a weighted one (arXiv 2203.05482).

    An average is formed from the first model, W_1 + (f_2 (W_2 - W_1) + f_3 (W_3 - W_1) + ...), each step
    rounded, f being the weights divided by their sum: so equal models are their average to the bit (but for
    the sign of zero), and little is lost where models are close. Where all are infinite, the result is NaN.
    Without `normalize` it is the plain sum of weight * model.

    Args:
        models: (m,) float32 or float64 each.
        weight: of each model.
        normalize: whether to divide by the sum of the weights.

    Raises:
        ConfigError: the weights to be divided by add up to 0.
    """
    factors = _factors(weight, len(models), normalize)
    if not normalize:
        return add_weighted(np.zeros_like(models[0]), models, factors)
    if len(models) == 1:
        return models[0].copy()
    return add_weighted(models[0], models[1:], factors[1:])


def fused(models: tuple[Any, ...], out: Any, *, weight: Weight, normalize: bool = True) -> None:
    """The same from patterns to patterns; see `engine.kernels.merging`."""
    factors = np.array(_factors(weight, len(models), normalize), np.float32)
    if not normalize:
        merging.weighted(np.zeros_like(models[0]), models, factors, out)
    elif len(models) == 1:
        floats.convert(models[0], out)
    else:
        merging.weighted(models[0], models[1:], factors[1:], out)
