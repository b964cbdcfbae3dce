"""The paper's simulated weights: a sparse matrix with a few outliers, and noise on top (App. C.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.nouns.dtypes import DTYPES
from engine.nouns.simulation import Simulation
from engine.sketch import Counter, Sketch

F32 = NDArray[np.float32]

_BLOCK = 1 << 20  # points drawn at once


def optimum(plan: Simulation) -> F32:
    """Draw the optimal weights: at random places, a truncated Gaussian and a few outliers; zeros elsewhere.

    The generator is numpy's PCG64, seeded with the seed alone. The paper names the seed and no generator.

    Returns:
        (points,) float32.
    """
    rng = np.random.default_rng(plan.seed)
    values = np.zeros(plan.points, np.float32)
    live = values[: plan.nonzero]
    _fill_normal(rng, plan.sigma, live)
    least, most = plan.truncation
    magnitude = np.abs(live)
    live[(magnitude < least) | (magnitude > most)] = 0
    values[: plan.outliers] = rng.uniform(*plan.outlier_range, plan.outliers)
    rng.shuffle(values)
    return values


def _fill_normal(rng: np.random.Generator, sigma: float, out: F32) -> None:
    """Draw in float64, by blocks: the stream does not depend on their size."""
    for start in range(0, out.size, _BLOCK):
        part = out[start : start + _BLOCK]
        part[:] = sigma * rng.standard_normal(part.size)


def observe_level(plan: Simulation, weights: F32, level: float) -> Sketch:
    """Count W* + N(0, level^2), formed block by block.

    The noise of a level has a generator of its own, seeded with the seed and the level, so that it does not
    depend on which other levels there are.

    Args:
        plan: for its seed.
        weights: (points,) float32, drawn by `optimum`.
        level: standard deviation of the noise.
    """
    rng = np.random.default_rng([plan.seed, int(np.float64(level).view(np.uint64))])
    counter = Counter(DTYPES["F32"])
    for start in range(0, weights.size, _BLOCK):
        part = weights[start : start + _BLOCK]
        noisy = part + level * rng.standard_normal(part.size)
        counter.add(noisy.astype("<f4").view(np.uint8))
    return counter.sketch()
