"""What mergekit 0.1.5 does to a tensor, restated, and how it differs from ours step by step.

Each method has steps that lead from our definition to mergekit's. A step is a name; a restatement is told
which steps it takes. With none of them it must give our bits, with all of them mergekit's. All values are
float32 arrays; rounding to a narrower dtype is said where it happens, because that is most of the difference.
Three things can only be had from torch itself, in the release that mergekit runs on and with as many threads:
the order in which it sorts equal numbers, the order in which it adds up a norm or an inner product, and the
precision in which it does that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from engine.merge_methods.model_stock import ratio_of
from engine.merge_methods.registry import METHODS
from engine.merge_methods.slerp import shares_of
from engine.merge_methods.task_vectors import add_parts, each, factors_of, put_together, trimmed
from engine.merge_methods.wholes import magnitudes_at, measure

Array = NDArray[np.float32]
Steps = frozenset[str]
TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
NUMPY: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
LEAST_WEIGHT = 1e-8
CHUNK = 1 << 20  # slerp adds up norms and products by so many elements

SAID = {
    "inputs": "inputs are rounded to the dtype first",
    "differences": "differences are rounded to the dtype",
    "count": "of equal magnitudes at a limit only some are kept, and of a small tensor at least one element",
    "order": "the operations come in another order",
    "weights": "weights are rounded to the dtype",
    "rounding": "every step is rounded to the dtype",
    "line": "the straight line is (1 - t) a + t b",
    "angle": "a vector of 0 has a right angle to every other, where ours takes the straight line",
    "cosine": "the cosine, the angle and the shares are float32, ours are float64",
    "negative": "opposite task vectors lead away from their average, where ours stay at the base",
    "short": "cosines of task vectors shorter than a thousandth are lowered",
    "ratio": "the ratio is float32, ours is float64",
}
"""What mergekit does otherwise, by step."""

_TASKS = ("inputs", "differences", "count", "order", "weights", "rounding")
LADDERS = {
    "linear": ("inputs", "order"),
    "task_arithmetic": tuple(s for s in _TASKS if s != "count"),
    "ties": _TASKS,
    "breadcrumbs": _TASKS,
    "dare_linear": tuple(s for s in _TASKS if s != "count"),
    "dare_ties": tuple(s for s in _TASKS if s != "count"),
    "della": tuple(s for s in _TASKS if s != "count"),
    "slerp": ("inputs", "line", "angle", "cosine"),
    "model_stock": ("inputs", "order", "negative", "short", "ratio", "rounding"),
}
"""The steps from our definition to mergekit's, in the order in which they are taken."""


def rounding(dtype: str) -> Callable[[Array], Array]:
    """To the nearest of a dtype, as float32."""

    def apply(x: Array) -> Array:
        with np.errstate(over="ignore"):
            return x if dtype == "F32" else x.astype(NUMPY[dtype]).astype(np.float32)

    return apply


def restated(
    method: str, base: Array | None, models: Sequence[Array], given: dict[str, Any], dtype: str, steps: Steps
) -> Array:
    """Merge by our definition, with some steps as mergekit takes them.

    Args:
        method: its name.
        base: (m,) the base.
        models: (m,) each.
        given: the method's parameters.
        dtype: the one that mergekit computes in.
        steps: some of the method's ladder.

    Returns:
        (m,), not yet rounded to what is written.
    """
    r = rounding(dtype) if "inputs" in steps else rounding("F32")
    base, models = None if base is None else r(base), [r(m) for m in models]
    if base is None:
        return _linear(models, given, steps)
    if method == "slerp":
        return _slerp(base, models[0], given["t"], steps)
    if method == "model_stock":
        return _model_stock(base, models, dtype, steps)
    return _tasks(method, base, models, given, dtype, steps)


def fma(a: Array, b: np.float32, c: Array) -> Array:
    """Form a * b + c, rounded once: the product is exact in float64, and the sum is rounded to odd there."""
    product, wide = a.astype(np.float64) * np.float64(b), c.astype(np.float64)
    total = product + wide
    back = total - product
    left = (product - (total - back)) + (wide - back)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    odd = np.where((left != 0) & even, np.nextafter(total, np.copysign(np.inf, left)), total)
    return odd.astype(np.float32)


def _linear(models: Sequence[Array], given: dict[str, Any], steps: Steps) -> Array:
    if "order" not in steps:
        merged: Array = METHODS["linear"](None, models, **given)
        return merged
    weights = np.array(each(given["weight"], len(models)), np.float32)
    total = np.zeros_like(models[0])
    for model, weight in zip(models, weights, strict=True):
        total = fma(model, weight, total)
    return total / weights.sum() if given["normalize"] else total


def _slerp(base: Array, model: Array, t: float, steps: Steps) -> Array:
    inner = measure(METHODS["slerp"], base, [model], {})["inner"]
    shares = shares_of(t, inner)
    if "angle" in steps and min(inner[0, 0], inner[1, 1]) == 0:
        shares = math.sin((1 - t) * math.pi / 2), math.sin(t * math.pi / 2)
    if "cosine" in steps:
        shares = _shares(base, model, t)
    one, own = np.float32(1), np.float32(t)
    if shares is not None:
        return base * np.float32(shares[0]) + model * np.float32(shares[1])
    if "line" in steps:
        return base * (one - own) + model * own
    return base + (model - base) * own if t <= 0.5 else model + (base - model) * np.float32(1 - t)


def _shares(base: Array, model: Array, t: float) -> tuple[float, float] | None:
    """As `shares_of`, but in float32."""
    pieces = [torch.from_numpy(x).split(CHUNK) for x in (base, model)]
    norms = [torch.stack([torch.linalg.vector_norm(p) for p in own]).norm() for own in pieces]
    norms = [n if n > 1e-8 else torch.ones(()) for n in norms]
    dots = [((a / norms[0]) * (b / norms[1])).sum() for a, b in zip(*pieces, strict=True)]
    cosine = torch.stack(dots).sum().clamp(-1, 1)
    if cosine.abs() > 0.9995:
        return None
    share, angle = torch.tensor(t, dtype=torch.float32), torch.acos(cosine)
    first = torch.sin((1 - share) * angle) / torch.sin(angle)
    return float(first), float(torch.sin(share * angle) / torch.sin(angle))


def _model_stock(base: Array, models: Sequence[Array], dtype: str, steps: Steps) -> Array:
    r = rounding(dtype) if "rounding" in steps else rounding("F32")
    inner, count = measure(METHODS["model_stock"], base, models, {})["task_inner"], len(models)
    if "order" not in steps:
        merged: Array = METHODS["model_stock"](base, models, task_inner=inner)
        return merged
    if "ratio" in steps:
        ratio = _ratio(base, models, dtype if "rounding" in steps else "F32")
    else:
        ratio = np.float32(_any_ratio(inner, "short" in steps) if "negative" in steps else ratio_of(inner))
    total = models[0]
    for model in models[1:]:
        total = r(total + model)
    average = r(total / np.float32(count))
    return r(r(ratio * average) + r(r(np.float32(1) - ratio) * base))


def _any_ratio(inner: NDArray[np.float64], lowered: bool) -> float:
    """As `ratio_of`, but c may be negative, and a product of norms may be taken for a millionth."""
    count, sizes = len(inner), np.sqrt(np.diag(inner))
    products = [sizes[i] * sizes[j] for i, j in combinations(range(count), 2)]
    least = 1e-6 if lowered else 5e-324
    cosines = [
        inner[i, j] / max(p, least) for (i, j), p in zip(combinations(range(count), 2), products, strict=True)
    ]
    mean = math.fsum(cosines) / len(cosines)
    return count * mean / (1 + (count - 1) * mean)


def _ratio(base: Array, models: Sequence[Array], dtype: str) -> Any:
    """As `_any_ratio`, but in the dtype, and 0 where there would be hardly anything to divide by."""
    own = [torch.from_numpy(x).to(TORCH[dtype]) for x in (base, *models)]
    tasks, count = [m - own[0] for m in own[1:]], len(models)
    cosines = [
        ((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-6)).clamp(-1, 1)
        for a, b in combinations(tasks, 2)
    ]
    mean = torch.stack(cosines).mean()
    below = 1 + (count - 1) * mean
    ratio = torch.zeros_like(mean) if below.abs() < 1e-6 else (count * mean) / below
    return ratio.float().numpy()


def _tasks(
    method: str, base: Array, models: Sequence[Array], given: dict[str, Any], dtype: str, steps: Steps
) -> Array:
    narrow = rounding(dtype) if "rounding" in steps else rounding("F32")
    r = rounding(dtype) if "differences" in steps else rounding("F32")
    tasks = _kept(method, [r(m - base) for m in models], given, "count" in steps)
    elects = method not in ("task_arithmetic", "breadcrumbs", "dare_linear")
    scale, normalize, weight = given["lambda_"], given["normalize"], given["weight"]
    if "order" not in steps:
        if elects:
            own = each(weight, len(tasks))
            parts = [t * np.float32(w) for t, w in zip(tasks, own, strict=True)]
            return put_together(base, parts, weight, scale, normalize)
        factors = factors_of(weight, len(tasks), scale, normalize)
        return add_parts(base, [t * np.float32(f) for t, f in zip(tasks, factors, strict=True)])
    weights = np.array(each(weight, len(tasks)), np.float32)
    weights = rounding(dtype)(weights) if "weights" in steps else weights
    parts = [narrow(t * w) for t, w in zip(tasks, weights, strict=True)]
    agree = [np.ones(base.shape, np.bool_)] * len(parts)
    if elects:
        positive = narrow(_sum(parts)) >= 0
        agree = [np.where(positive, p > 0, p < 0) for p in parts]
    total = narrow(_sum([np.where(a, p, np.float32(0)) for a, p in zip(agree, parts, strict=True)]))
    if normalize:
        below = narrow(_sum([a * w for a, w in zip(agree, weights, strict=True)]))
        nothing = below == 0 if elects else np.abs(below) < LEAST_WEIGHT
        total = narrow(total / np.where(nothing, np.float32(1), below))
    total = narrow(total * np.float32(scale)) if scale != 1 else total
    return narrow(base + total)


def _sum(parts: Sequence[Array]) -> Array:
    """From left to right beginning with 0, so that -0 becomes 0."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total = total + part
    return total


def _kept(method: str, tasks: list[Array], given: dict[str, Any], exactly: bool) -> list[Array]:
    """Task vectors with 0 where they are trimmed."""
    if METHODS[method].ranks is None:
        return tasks
    ranks = METHODS[method].ranks_of(tasks[0].size, len(tasks), given)
    if exactly:
        return [
            task * _mask(method, task, rank) if density < 1 else task
            for task, rank, density in zip(tasks, ranks, each(given["density"], len(tasks)), strict=True)
        ]
    return [trimmed(task, 1.0, magnitudes_at(task, rank)) for task, rank in zip(tasks, ranks, strict=True)]


def _mask(method: str, task: Array, ranks: tuple[int, int] | None) -> Array:
    """1 for as many elements as the ranks span, of equal ones those that torch's sort puts there."""
    mask = np.zeros(task.size, np.float32)
    size = torch.from_numpy(np.abs(task))
    if method == "ties":
        count = ranks[1] - ranks[0] + 1 if ranks else 1
        mask[torch.argsort(size, descending=True)[:count].numpy()] = 1
    elif ranks:
        mask[torch.sort(size).indices[ranks[0] : ranks[1] + 1].numpy()] = 1
    return mask
