"""Adapters built on the spot, run without a warehouse, and their dW formed whole in numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from engine.execution.fold import Fold
from engine.execution.in_process import InProcessExecutor
from engine.formats.adapters import open_adapter
from engine.formats.checkpoint import open_checkpoint
from engine.kernels.products import LANES
from engine.nouns.adapters import Adapter, Module
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Part
from engine.plan import Limits, Selection
from engine.plan.adapters import Stock, take_stock
from engine.plan.products import plan_adapters
from engine.sketch import Sketch, combine, observe
from engine.statistics.refinement import Refinement, combine_refinements
from engine.statistics.summary import codes_to_refine
from engine.tasks.count import CountBody
from tests.builders import Tensors, as_f32, assert_same, patterns_of, raw, values_of, write_tensors

F32 = NDArray[np.float32]
PREFIX = "base_model.model."
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "some/base"}


# Making adapters


def tensor(dtype: str, *shape: int, seed: int, std: float = 0.05) -> tuple[str, Any]:
    values = np.random.default_rng(seed).normal(0, std, shape).reshape(-1)
    return dtype, patterns_of(dtype, values).reshape(shape)


def factors(
    module: str, out: int, into: int, r: int = 4, *, seed: int = 0, dtypes: Sequence[str] = ("F32", "F32")
) -> dict[str, Any]:
    """A and B of a linear layer, as PEFT names them."""
    a, b = dtypes
    return {
        f"{PREFIX}{module}.lora_A.weight": tensor(a, r, into, seed=2 * seed),
        f"{PREFIX}{module}.lora_B.weight": tensor(b, out, r, seed=2 * seed + 1),
    }


def magnitudes(module: str, out: int, seed: int = 0) -> dict[str, Any]:
    values = 1 + np.random.default_rng(seed).uniform(0, 1, out)
    return {f"{PREFIX}{module}.lora_magnitude_vector": ("F32", patterns_of("F32", values))}


def write_adapter(directory: Path, tensors: Tensors, **settings: Any) -> Path:
    write_tensors(directory / "adapter_model.safetensors", tensors)
    (directory / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    return directory


def numbers(pair: tuple[str, Any]) -> F32:
    """The values of a tensor as float32, in its shape."""
    dtype, patterns = pair
    if DTYPES[dtype].bits >= 32:
        return as_f32(dtype, np.asarray(patterns)).view("<f4").reshape(patterns.shape)
    return values_of(dtype, patterns).astype(np.float32).reshape(patterns.shape)


# dW, whole


def product(b: F32, a: F32, scale: float) -> F32:
    """scale x (B A), each element a chain of fused multiply-adds in float32 from +0, k = 0, 1, ..."""
    total = np.zeros((b.shape[0], a.shape[1]), np.float32)
    with np.errstate(all="ignore"):
        for k in range(b.shape[1]):  # exact in 64 bits of mantissa, and rounded once
            exact = b[:, k : k + 1].astype(np.longdouble) * a[k].astype(np.longdouble)
            total = (exact + total).astype(np.float32)
        return total * np.float32(scale)


def dora(base: F32, delta: F32, m: F32) -> F32:
    """m / ||base + delta|| (base + delta) - base with norms of rows, squares added up by lanes."""
    with np.errstate(all="ignore"):
        v = (base + delta).astype(np.float64)
        padded = np.zeros((v.shape[0], -(-v.shape[1] // LANES) * LANES))
        padded[:, : v.shape[1]] = v * v
        lanes = np.zeros((v.shape[0], LANES))
        for start in range(0, padded.shape[1], LANES):
            lanes += padded[:, start : start + LANES]
        total = np.zeros(v.shape[0])
        for lane in range(LANES):
            total += lanes[:, lane]
        return _rescaled(base, delta, (m / np.sqrt(total)).astype(np.float32)[:, None])


def dora_by_column(base: F32, delta: F32, m: F32) -> F32:
    """The same with norms of columns, squares added up row after row."""
    with np.errstate(all="ignore"):
        total = np.zeros(base.shape[1])
        for row in (base + delta).astype(np.float64) ** 2:
            total += row
        return _rescaled(base, delta, (m / np.sqrt(total)).astype(np.float32))


def _rescaled(base: F32, delta: F32, factor: F32) -> F32:
    return factor * (base + delta) - base


def change(adapter: Adapter, module: Module, tensors: Tensors, base: Tensors | None = None) -> F32:
    """dW of a module as the base stores it, flattened to a matrix."""
    own = [numbers(pair) for pair in tensors.values()]
    by_name = {t.name: i for i, t in enumerate(adapter.checkpoint.tensors)}
    order = [by_name[name] for name in tensors]
    found = dict(zip(order, own, strict=True))
    pairs = []
    if module.a is not None and module.b is not None:
        b, a = (found[i].reshape(found[i].shape[0], -1) for i in (module.b, module.a))
        pairs.append((b, a, module.scale))
    if module.dash is not None:
        u, c, v = (found[i] for i in (module.dash.left, module.dash.weights, module.dash.right))
        pairs.append((u * c.reshape(1, -1), v, 1.0))
    turned = [(right.T, left.T, s) if module.transposed else (left, right, s) for left, right, s in pairs]
    delta = product(*turned[0]) if turned else np.zeros(module.matrix, np.float32)
    for more in turned[1:]:
        delta = delta + product(*more)
    if module.noise is not None:
        return noisy(module, delta, found[module.noise.scale].reshape(()), base)
    if module.magnitude is None:
        return delta
    assert base is not None
    weight = numbers(base[module.name])
    form = dora_by_column if module.transposed else dora
    return form(weight.reshape(weight.shape[0], -1), delta, found[module.magnitude].reshape(-1))


def noisy(module: Module, delta: F32, s: F32, base: Tensors | None) -> F32:
    """Delta + s N, delta + s W, or s N - W; N is drawn whole."""
    assert module.noise is not None
    weight = numbers(base[module.name]) if base is not None and module.noise.form != "gaussian" else None
    if module.noise.form == "weights":
        return delta + s * weight
    noise = drawn(module.noise.key, delta.size).reshape(delta.shape)
    return delta + s * noise if weight is None else (delta + s * noise) - weight


def drawn(key: int, size: int) -> F32:
    """The first numbers of a stream of noise: SplitMix64's counter and the normal distribution's inverse."""
    golden, first, second = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (np.arange(size, dtype=np.uint64) + np.uint64(1)) * np.uint64(golden)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(first)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(second)
        n = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    low = np.minimum(n, np.uint64((1 << 53) - 1) - n).astype(np.float64) + 0.5
    return np.where(n < np.uint64(1 << 52), ndtri(low * 2.0**-53), -ndtri(low * 2.0**-53)).astype(np.float32)


# Running


@dataclass(frozen=True)
class Result:
    """What came of several adapters: for each, by name, the sketch, or what a second pass found."""

    stocks: list[Stock]
    parts: list[dict[str, list[Part[Any]]]]
    sketches: list[dict[str, Sketch]]
    refinements: list[dict[str, Refinement]]


def open_all(adapters: Sequence[Path | str], base: Path | str | None = None, **how: Any) -> list[Stock]:
    opened: Checkpoint | None = open_checkpoint(str(base)) if base is not None else None
    return [take_stock(open_adapter(str(a)), opened, Selection(**how)) for a in adapters]


def run(
    adapters: Sequence[Path | str],
    base: Path | str | None = None,
    *,
    workers: int = 1,
    task_bytes: int | None = None,
    block_bytes: int = 1 << 20,
    exact: bool = False,
) -> Result:
    """Count adapters through the reference executor."""
    stocks = open_all(adapters, base)
    limits = Limits(workers=workers, task_bytes=task_bytes, block_bytes=block_bytes)
    plan = plan_adapters(stocks, limits, exact=exact)
    parts, whole = _fold(stocks, plan.offsets, plan.tasks, combine, workers)
    refinements: list[dict[str, Refinement]] = []
    if exact:
        codes = {
            plan.offsets[k] + i: codes_to_refine(whole[k][t.name])
            for k, stock in enumerate(stocks)
            for i, t in enumerate(stock.inventory.tensors)
            if i in stock.changes
        }
        second = plan_adapters(stocks, limits, exact=True, refine=codes)
        refinements = _fold(stocks, plan.offsets, second.tasks, combine_refinements, workers)[1]
    return Result(stocks, parts, whole, refinements)


def _fold(
    stocks: Sequence[Stock], offsets: Sequence[int], tasks: Sequence[Any], add_up: Any, workers: int
) -> tuple[list[dict[str, list[Part[Any]]]], list[dict[str, Any]]]:
    names = {
        offset + i: (k, t)
        for k, (stock, offset) in enumerate(zip(stocks, offsets, strict=True))
        for i, t in enumerate(stock.inventory.tensors)
    }
    fold: Fold[Any] = Fold({i: t.elements for i, (_, t) in names.items()}, add_up)
    parts: list[dict[str, list[Part[Any]]]] = [{} for _ in stocks]
    whole: list[dict[str, Any]] = [{} for _ in stocks]
    for outcome in InProcessExecutor(workers).run(CountBody, tasks):
        for part in outcome.parts:
            k, info = names[part.tensor]
            parts[k].setdefault(info.name, []).append(part)
        for ordinal, found in fold.add(outcome.parts):
            k, info = names[ordinal]
            whole[k][info.name] = found
    assert not fold.partials
    return parts, whole


def assert_counted(parts: Sequence[Part[Sketch]], whole: F32) -> None:
    """Every part is of the rows that it says, to the last bit."""
    flat = np.ascontiguousarray(whole).reshape(-1)
    assert sum(stop - start for start, stop in (p.span for p in parts)) == flat.size
    for part in parts:
        patterns = flat[slice(*part.span)].view("<u4")
        patterns = np.where(patterns & 0x7FFFFFFF > 0x7F800000, 0x7FC00000, patterns).astype("<u4")
        assert_same(part.found, observe(raw(patterns), DTYPES["F32"]))


def assert_adapter(
    directory: Path, tensors: Tensors, base: tuple[Path, Tensors] | None = None, **how: Any
) -> Mapping[str, F32]:
    """All modules of an adapter are counted as numpy forms them; returns their dW."""
    result = run([directory], base[0] if base else None, **how)
    (stock,), (parts,) = result.stocks, result.parts
    formed = {}
    for module in stock.adapter.modules:
        formed[module.name] = change(stock.adapter, module, tensors, base[1] if base else None)
        assert math.prod(module.shape) == formed[module.name].size
        assert_counted(parts[module.name], formed[module.name])
    return formed
