"""What the tests of merging share: inputs, parameters of every method, and how a block is merged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.merge_methods.apply import Stored, merge, widen
from engine.merge_methods.registry import METHODS
from engine.merge_methods.wholes import measure
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Need, Stretch
from tests.builders import patterns_of, raw, unsigned

TENSOR = "model.layers.0.mlp.up_proj.weight"

PARAMETERS: dict[str, dict[str, Any]] = {
    "outlier": {"t": 2.0},
    "linear": {"weight": (0.5, 1.0, 0.25)},
    "task_arithmetic": {"weight": (0.5, 1.0, -0.25), "lambda_": 1.5},
    "ties": {"weight": (0.5, 1.0, 0.75), "density": (0.3, 0.5, 0.7), "lambda_": 0.9},
    "dare_linear": {"weight": (0.5, 1.0, 0.75), "density": (0.3, 0.5, 0.7), "seed": 5},
    "dare_ties": {"weight": (0.5, 1.0, 0.75), "density": (0.3, 0.5, 0.7), "normalize": True},
    "breadcrumbs": {"weight": (0.5, 1.0, 0.75), "density": (0.9, 0.5, 0.7), "gamma": (0.05, 0.2, 0.4)},
    "della": {"weight": (0.5, 1.0, 0.75), "density": (0.3, 0.5, 0.7), "epsilon": (0.1, 0.2, 0.15)},
    "slerp": {"t": 0.3},
    "model_stock": {},
}

FUSED = [name for name, method in METHODS.items() if method.fused is not None]


def models_of(method: str, count: int = 3) -> int:
    return 1 if method == "slerp" else count


def noisy(dtypes: list[str], size: int, seed: int = 0) -> list[Stored]:
    """A base and what was tuned from it: small Gaussian changes, a few large ones, some none."""
    r = np.random.default_rng(seed)
    base = r.normal(0, 0.02, size)
    values = [base]
    for _ in dtypes[1:]:
        change = r.normal(0, 0.004, size) * np.where(r.random(size) < 0.02, 8, 1)
        values.append(base + np.where(r.random(size) < 0.1, 0, change))
    return [stored(d, patterns_of(d, v)) for d, v in zip(dtypes, values, strict=True)]


def stored(dtype: str, patterns: NDArray[Any]) -> Stored:
    return Stored(raw(patterns).copy(), DTYPES[dtype])


def arguments(
    method: str, inputs: list[Stored], parameters: dict[str, Any] | None = None, *, wide: bool = False
) -> dict[str, Any]:
    """Parameters, and what is to be known of the whole tensors; `inputs` begins with the base."""
    given = PARAMETERS[method] if parameters is None else parameters
    base, *models = (widen(i, wide) for i in inputs)
    return {**given, **measure(METHODS[method], base, models, given)}


def merged(
    method: str,
    inputs: list[Stored],
    out: str,
    given: dict[str, Any],
    *,
    stretch: Stretch | None = None,
    wide: bool = False,
) -> NDArray[Any]:
    """Patterns of the merged block."""
    place = stretch or Stretch(TENSOR, 0, inputs[0].size)
    into = Stored(np.zeros(inputs[0].size * DTYPES[out].bits // 8, np.uint8), DTYPES[out])
    merge(METHODS[method], inputs[0], inputs[1:], into, given, stretch=place, wide=wide)
    return into.data.view(unsigned(out))


def defined(
    method: str, inputs: list[Stored], given: dict[str, Any], *, stretch: Stretch, wide: bool = False
) -> NDArray[Any]:
    """What the pure function says, without rounding."""
    base, *models = (widen(i, wide) for i in inputs)
    place = {"stretch": stretch} if Need.STRETCH in METHODS[method].needs else {}
    return METHODS[method](base, models, **given, **place)
