"""How fast are the merging loops, beside the same operations in torch and in numpy? One thread, bf16.

python benchmarks/merge_loops.py [--models 2] [--rows 4096] [--columns 1024] [--rounds 5] [--repeat 1]
    [--methods outlier ...] [--dtype BF16]

Needs torch and ml_dtypes. A matrix of each model lies in memory, or, with few rows, in the second-level
cache, where a task has its blocks. Ours merges blocks of 512 Ki elements; the peers take the whole matrix,
in float32, as one writes it. All are given what must be known of the whole tensor (sigma, the magnitudes
that are kept), so that only the merge is timed. GB/s are of bytes read plus bytes written, medians over the
rounds, of which each repeats a merge so many times; the ratios are medians of the rounds' ratios. Before
anything is timed, the merged matrices are compared: what is not random must agree to one digit of the
dtype.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
import torch
from common import preamble, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.merge_methods.apply import Stored, merge, widen
from engine.merge_methods.registry import METHODS
from engine.merge_methods.wholes import measure
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Stretch

BLOCK = 1 << 19
NUMPY = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
PARAMETERS: dict[str, dict[str, Any]] = {
    "outlier": {"t": 3.0},
    "linear": {"weight": 1.0},
    "task_arithmetic": {"weight": 0.5},
    "ties": {"weight": 1.0, "density": 0.5},
    "dare_ties": {"weight": 1.0, "density": 0.5},
    "dare_linear": {"weight": 1.0, "density": 0.5},
    "breadcrumbs": {"weight": 1.0, "density": 0.9},
    "slerp": {"t": 0.4},
    "della": {"weight": 1.0, "density": 0.5},
}
PEERS = ("outlier", "linear", "task_arithmetic", "ties", "dare_ties")


def drop(array: Any, task: Any, share: float, generator: Any) -> Any:
    if array is torch:
        return task * torch.bernoulli(torch.full_like(task, share), generator=generator) / share
    return np.where(generator.random(task.shape, np.float32) < share, task / np.float32(share), np.float32(0))


def by_hand(array: Any, method: str, base: Any, models: list[Any], known: dict[str, Any], random: Any) -> Any:
    """A merge as one writes it: `array` is torch or numpy, all else float32."""
    if method == "linear":
        return sum(models[1:], models[0]) / len(models)
    tasks = [m - base for m in models]
    if method == "outlier":
        limit = known["t"] * min(known["sigma"])
        return base + sum(array.where(abs(d) <= limit, d / len(tasks), d) for d in tasks)
    if method == "task_arithmetic":
        return base + sum(d * known["weight"] for d in tasks)
    if method == "ties":
        zero = array.zeros_like(base)
        tasks = [
            array.where(abs(d) >= low, d, zero) for d, (low, _) in zip(tasks, known["band"], strict=True)
        ]
    else:
        tasks = [drop(array, d, known["density"], random) for d in tasks]
    elected = sum(tasks) >= 0
    agree = [(d != 0) & ((d > 0) == elected) for d in tasks]
    total = sum(d * a for d, a in zip(tasks, agree, strict=True))
    if method == "dare_ties":
        return base + total
    count = sum(array.where(a, array.ones_like(base), array.zeros_like(base)) for a in agree)
    return base + total / array.where(count > 0, count, array.ones_like(base))


def ours(method: str, inputs: list[Stored], out: Stored, known: dict[str, Any], columns: int) -> None:
    step = BLOCK // columns * columns
    for start in range(0, out.size, step):
        stop = min(start + step, out.size)
        base, *models = (i.part(start, stop) for i in inputs)
        stretch = Stretch("a", start, columns)
        merge(METHODS[method], base, models, out.part(start, stop), known, stretch=stretch)


def timed(run: Callable[[], Any], repeat: int) -> float:
    began = time.perf_counter()
    for _ in range(repeat):
        run()
    return (time.perf_counter() - began) / repeat


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--dtype", choices=NUMPY, default="BF16")
    parser.add_argument("--methods", nargs="+", choices=PARAMETERS, default=list(PARAMETERS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    size = args.rows * args.columns
    base = random.normal(0, 0.02, size).astype(np.float32)
    values = [base] + [base + random.normal(0, 0.004, size).astype(np.float32) for _ in range(args.models)]
    matrices = [v.astype(NUMPY[args.dtype]).reshape(args.rows, -1) for v in values]
    print(preamble(), f"\n\n{args.models} models, {args.rows:,} x {args.columns:,}, {args.dtype}\n")
    rows = [row_of(method, matrices, args) for method in args.methods]
    head = ["method", "ours GB/s", "torch GB/s", "numpy GB/s", "times torch", "times numpy"]
    print(table(head, rows))


def row_of(method: str, matrices: list[Any], args: argparse.Namespace) -> list[str]:
    count = 1 if method == "slerp" else args.models
    matrices = matrices[: count + 1]
    dtype = DTYPES[args.dtype]
    inputs = [Stored(m.reshape(-1).view(np.uint8), dtype) for m in matrices]
    floats = [widen(i) for i in inputs]
    known = {**PARAMETERS[method], **measure(METHODS[method], floats[0], floats[1:], PARAMETERS[method])}
    out = Stored(np.zeros_like(inputs[0].data), dtype)
    tensors = [
        torch.from_numpy(m.view(np.int16 if dtype.bits == 16 else np.int32)).view(TORCH[args.dtype])
        for m in matrices
    ]
    generators = {torch: torch.Generator().manual_seed(0), np: np.random.default_rng(0)}

    def in_torch() -> Any:
        wide = [t.float() for t in tensors]
        return by_hand(torch, method, wide[0], wide[1:], known, generators[torch]).to(TORCH[args.dtype])

    def in_numpy() -> Any:
        wide = [m.astype(np.float32) for m in matrices]
        return by_hand(np, method, wide[0], wide[1:], known, generators[np]).astype(NUMPY[args.dtype])

    runs: list[Callable[[], Any]] = [lambda: ours(method, inputs, out, known, args.columns)]
    runs[0]()
    if method in PEERS:
        runs += [in_torch, in_numpy]
        if method != "dare_ties":
            merged = out.data.view(NUMPY[args.dtype]).astype(np.float32)
            for peer in (in_torch().float().numpy(), in_numpy().astype(np.float32)):
                np.testing.assert_allclose(merged, peer.reshape(-1), rtol=2.0**-7, atol=1e-4)
    seconds = [[timed(run, args.repeat) for run in runs] for _ in range(args.rounds)]
    read = len(inputs) - (method == "linear")
    speeds = [(read + 1) * out.data.size / median(s) / 1e9 for s in zip(*seconds, strict=True)]
    ratios = [median(s[k] / s[0] for s in seconds) for k in range(1, len(runs))]
    blank = [""] * (3 - len(runs))
    return [method, *(f"{s:.2f}" for s in speeds), *blank, *(f"{r:.1f}" for r in ratios), *blank]


if __name__ == "__main__":
    main()
