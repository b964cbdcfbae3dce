"""Goes from one tensor to another along the arc between them."""

from __future__ import annotations

import math

import numpy as np

from engine.merge_methods.signature import Block, Fraction, Inner, Single

PARALLEL = 0.9995
"""Vectors whose cosine is beyond this are interpolated along the straight line."""


def shares_of(t: float, inner: Inner) -> tuple[float, float] | None:
    """How much of the base and of the model there is at t on the arc.

    Args:
        t: from 0, the base, to 1, the model.
        inner: (2, 2) inner products.

    Returns:
        two factors; None for the straight line: where the two are nearly parallel, or one is 0 or is no
        number, and has no direction.
    """
    norms = math.sqrt(inner[0, 0]) * math.sqrt(inner[1, 1])
    cosine = float(inner[0, 1]) / norms if norms > 0 else math.nan
    if not abs(cosine) <= PARALLEL:
        return None
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


@np.errstate(all="ignore")
def slerp(base: Block, models: Single, *, t: Fraction, inner: Inner) -> Block:
    """Spherical linear interpolation (Shoemake 1985) of two tensors as vectors.

    Args:
        base: (m,) float32 or float64.
        models: one block likewise.
        t: from 0, the base, to 1, the model.
        inner: (2, 2) inner products of the two whole tensors.

    Returns:
        a block like `base`. On the straight line it is formed from the nearer end, so that both ends are
        exact and equal tensors stay what they are.
    """
    number, (model,) = base.dtype.type, models
    shares = shares_of(t, inner)
    if shares is not None:
        return base * number(shares[0]) + model * number(shares[1])
    if t <= 0.5:
        return base + (model - base) * number(t)
    return model + (base - model) * number(1 - t)
