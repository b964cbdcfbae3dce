"""Time dW of an adapter of all linear layers: formed and counted, formed alone, and numpy's B @ A.

python benchmarks/adapters.py [--layout llama-7b] [--rank 16] [--workers 2] [--rounds 5] [--dora]

Every way runs in a process of its own, once uncounted, then all of them once a round, in order; BLAS has as
many threads as we have workers. `gaussmeter delta` is the whole command, into a warehouse of its own; `formed
and counted` leaves out starting, opening, planning and writing. numpy forms each dW whole, once into a new
array, as PEFT does, and once into one that is there already. GFLOP/s are 2 x rank for each element; the last
columns are by processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from common import GAUSSMETER, measure, preamble, table
from layouts import LAYOUTS

WAYS = {
    "count": "formed and counted",
    "form": "formed alone",
    "numpy": "numpy, B @ A",
    "numpy-out": "numpy, B @ A into an array",
}
OURS = "gaussmeter delta"
_BLOCK = 1 << 17
Took = tuple[float, float]


def linear_layers(layout: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and shapes of the layers that are adapted."""
    for name, shape in LAYOUTS[layout].tensors().items():
        if name.endswith("_proj.weight"):
            yield name.removesuffix(".weight"), (shape[0], shape[1])


def make(directory: Path, layout: str, rank: int, dora: bool) -> None:
    """Write an adapter with random factors."""
    import numpy as np
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    state = {}
    for name, (rows, columns) in linear_layers(layout):
        bound = np.float32(columns**-0.5)
        state[f"base_model.model.{name}.lora_A.weight"] = (
            rng.random((rank, columns), np.float32) * 2 * bound - bound
        )
        state[f"base_model.model.{name}.lora_B.weight"] = rng.standard_normal(
            (rows, rank), np.float32
        ) * np.float32(0.01)
        if dora:
            state[f"base_model.model.{name}.lora_magnitude_vector"] = 1 + rng.random(rows, np.float32)
    save_file(state, directory / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "use_dora": dora}
    (directory / "adapter_config.json").write_text(json.dumps(settings))


# Ways, each in a process of its own


class Clock:
    """Seconds, and seconds of all processors, since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __call__(self) -> Took:
        """Read it."""
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


def count(directory: Path, base: str | None, workers: int) -> Took:
    """Form and count everything; returns the time without opening and planning."""
    from engine.execution.fold import Fold
    from engine.execution.in_process import InProcessExecutor
    from engine.formats.adapters import open_adapter
    from engine.formats.checkpoint import open_checkpoint
    from engine.plan import Limits, Selection
    from engine.plan.adapters import take_stock
    from engine.plan.products import plan_adapters
    from engine.sketch import combine
    from engine.tasks.count import CountBody

    opened = open_checkpoint(base) if base else None
    stock = take_stock(open_adapter(str(directory)), opened, Selection())
    plan = plan_adapters([stock], Limits(workers=workers))
    fold = Fold({i: t.elements for i, t in enumerate(stock.inventory.tensors)}, combine)
    CountBody()(plan.tasks[-1])  # compiles
    clock = Clock()
    for outcome in InProcessExecutor(workers).run(CountBody, plan.tasks):
        fold.add(outcome.parts)  # type: ignore[arg-type]
    return clock()


def form(directory: Path, _: str | None, workers: int) -> Took:
    """Form everything by the kernel, block by block, and count nothing."""
    import numpy as np

    from engine.kernels import products

    width, scale = 4 * products.STRIP, np.float32(2)

    def one(pair: tuple[Any, Any]) -> None:
        b, a = pair
        rows, columns, rank = len(b), a.shape[1], len(a)
        strips, left, out = products.strips_of(a), b.reshape(-1), np.empty(_BLOCK, np.uint32)
        step = _BLOCK // width
        for start in range(0, rows, step):
            count = min(step, rows - start)
            for column in range(0, columns, width):
                w = min(width, columns - column)
                first, part = column // products.STRIP, out[: count * w]
                products.form(left[start * rank :], strips, rank, count, first, w, scale, False, part)

    factors = _factors(directory)
    one(factors[0])
    clock = Clock()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, factors))
    return clock()


def with_numpy(directory: Path, _: str | None, workers: int) -> Took:
    """B @ A into a new array."""
    factors = _factors(directory)
    factors[0][0] @ factors[0][1]
    clock = Clock()
    for b, a in factors:
        b @ a
    return clock()


def with_numpy_out(directory: Path, _: str | None, workers: int) -> Took:
    """B @ A into an array that is there already."""
    import numpy as np

    factors = _factors(directory)
    out = np.ones(max(len(b) * a.shape[1] for b, a in factors), np.float32)
    clock = Clock()
    for b, a in factors:
        np.matmul(b, a, out=out[: len(b) * a.shape[1]].reshape(len(b), a.shape[1]))
    return clock()


def _factors(directory: Path) -> list[tuple[Any, Any]]:
    from safetensors.numpy import load_file

    state = load_file(directory / "adapter_model.safetensors")
    names = [n for n in state if n.endswith("lora_B.weight")]
    return [(state[n], state[n.replace("lora_B", "lora_A")]) for n in names]


_ROLES = {"count": count, "form": form, "numpy": with_numpy, "numpy-out": with_numpy_out}


def command(way: str, directory: Path, a: argparse.Namespace) -> list[str]:
    """This script, doing one thing."""
    words = [sys.executable, str(Path(__file__).resolve()), "--way", way, "--adapter", str(directory)]
    words += ["--workers", str(a.workers), "--layout", a.layout, "--rank", str(a.rank)]
    return [*words, *(["--dora"] if a.dora else []), *(["--base", str(a.base)] if a.base else [])]


def rounds(a: argparse.Namespace, directory: Path) -> str:
    """Run all ways, and make a table of what they cost."""
    threads = str(a.workers)
    os.environ |= {"OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    ways = ["count"] if a.dora else list(WAYS)
    took: dict[str, list[Took]] = {way: [] for way in (OURS, *ways)}
    peaks = dict.fromkeys(took, 0)
    ours = [GAUSSMETER, "delta", "--adapter", str(directory), "-j", threads, "--force", "-q"]
    ours += ["-w", str(directory / "stats.duckdb"), *(["--base", str(a.base)] if a.base else [])]
    for number in range(a.rounds + 1):
        for way, times in took.items():
            cost = measure(ours if way == OURS else command(way, directory, a))
            if number:  # the first warms up
                seconds = (cost.wall, cost.cpu) if way == OURS else json.loads((directory / way).read_text())
                times.append((seconds[0], seconds[1]))
                peaks[way] = max(peaks[way], cost.peak)
    elements = sum(rows * columns for _, (rows, columns) in linear_layers(a.layout))
    lines = []
    for way, name in ((OURS, OURS), *((w, WAYS[w]) for w in ways)):
        wall, cpu = (median(t[i] for t in took[way]) for i in (0, 1))
        flops = 2 * a.rank * elements / 1e9
        ratios = [_ratio(took, other, way, i) for i in (0, 1) for other in ("numpy", "numpy-out")]
        peak = f"{peaks[way] / 1e6:,.0f}"
        rates = f"{wall:.2f}", f"{elements / wall / 1e9:.2f}", f"{flops / wall:.1f}", *ratios[:2], peak
        lines.append([name, *rates, f"{flops / cpu:.1f}", *ratios[2:]])
    head = ["way", "s", "10^9 elements/s", "GFLOP/s", "of B @ A", "of that into an array", "peak MB"]
    return table([*head, "GFLOP/s a core", "of B @ A", "of that into an array"], lines)


def _ratio(took: dict[str, list[Took]], other: str, way: str, i: int) -> str:
    """Median over the rounds of the time of another way divided by that of this one."""
    if other not in took:
        return "-"
    return f"{median(x[i] / y[i] for x, y in zip(took[other], took[way], strict=True)):.2f}"


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="llama-7b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dora", action="store_true", help="with magnitudes, on --base")
    parser.add_argument("--base", type=Path, help="a checkpoint of the layout")
    parser.add_argument("--way", choices=[*WAYS, "make"], help=argparse.SUPPRESS)
    parser.add_argument("--adapter", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.way == "make":
        make(a.adapter, a.layout, a.rank, a.dora)
    elif a.way:
        took = _ROLES[a.way](a.adapter, str(a.base) if a.base else None, a.workers)
        (a.adapter / a.way).write_text(json.dumps(took))
    else:
        with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch:
            subprocess.run(command("make", Path(scratch), a), check=True)
            print(preamble())
            print(f"{a.layout}, rank {a.rank}, {a.workers} workers and threads of BLAS, {a.rounds} rounds.\n")
            print(rounds(a, Path(scratch)))


if __name__ == "__main__":
    main()
