"""Everything that is to be known of a GPU, in one command: tests, loops and their rivals, whole commands.

python benchmarks/gpu.py [--gib 2] [--rounds 15] [--parts ...]

Parts: `tests` (those of tests/gpu, on the device), `counting`, `floats`, `rows`, `host`, `files`, `products`,
`differences`, `merges`, `observe` (a model on the GPU) and `commands` (see gpu_commands.py).

Times are medians by device events (from the host: by the clock, to the end of all work). GB/s counts the
bytes read, and for merges those written too; `of copy` is the share of a copy within the GPU's memory, whose
rate counts both the bytes read and those written.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from common import HERE, preamble, table

sys.path.insert(0, str(HERE.parent))

from engine.device.choosing import choose
from engine.device.counter import AnyCounter, GpuCounter, make_counter
from engine.errors import ConfigError

try:
    choose("cuda")
except ConfigError as error:
    sys.exit(f"benchmarks/gpu.py: {error}")

import torch
from gpu_candidates import EIGHT, SIXTEEN
from gpu_commands import compare
from gpu_timing import FILLS, copy_rate, filled, machine, seconds

from engine.device.live import observe_all
from engine.kernels import rows as rows_on_cpu
from engine.kernels.cuda import native, nvrtc, portable
from engine.kernels.cuda.merging import merge
from engine.kernels.cuda.rows import measure_rows
from engine.kernels.cuda.tallies import CodeTally, FloatTally
from engine.nouns.dtypes import DTYPES
from engine.nouns.matrices import Matrix

CUDA = torch.device("cuda")


class Bench:
    """Sizes, rounds, and the rate of a copy."""

    def __init__(self, gib: float, rounds: int) -> None:
        self.nbytes, self.rounds = int(gib * 2**30), rounds
        self.copy = copy_rate(self.nbytes, rounds)

    def row(self, work: Callable[[], object], nbytes: int) -> list[str]:
        """Rate of some work, and its share of the copy's."""
        rate = nbytes / seconds(work, self.rounds)
        return [f"{rate / 1e9:,.0f}", f"{rate / self.copy:.2f}"]


def counting(bench: Bench) -> str:
    """Complete dtypes: every candidate on every fill of bf16, the engine's on the others."""
    rows = []
    for fill in FILLS:
        rows += _race(
            bench, SIXTEEN, "BF16", fill, filled(fill, torch.bfloat16, bench.nbytes // 2).view(torch.int16)
        )
    for fill in FILLS:
        ours = dict([next(iter(SIXTEEN.items()))])
        rows += _race(
            bench, ours, "F16", fill, filled(fill, torch.float16, bench.nbytes // 2).view(torch.int16)
        )
    for fill in FILLS:
        values = filled(fill, torch.float8_e4m3fn, bench.nbytes, sigma=100.0)
        rows += _race(bench, EIGHT, "F8_E4M3", fill, values.view(torch.uint8))
    return table(["dtype", "fill", "way", "GB/s", "of copy"], rows)


def _race(bench: Bench, ways: dict, dtype: str, fill: str, data: torch.Tensor) -> list[list[str]]:
    rows, expected = [], None
    for label, way in ways.items():
        found = way(data)
        expected = found if expected is None else expected
        right = torch.equal(found, expected)
        row = bench.row(lambda way=way: way(data), data.nbytes)
        rows.append([dtype, fill, label if right else f"{label}, miscounts", *row])
    return rows


def floats(bench: Bench) -> str:
    """Counts and sums of F32."""
    rows = []
    for fill in FILLS:
        data = filled(fill, torch.float32, bench.nbytes // 4).view(torch.uint8)
        tally = FloatTally(CUDA)
        tally.add(data)
        rows.append(
            ["F32", fill, "shared tables (ours)", *bench.row(lambda t=tally, d=data: t.add(d), data.nbytes)]
        )
        state = tally._state.clone()
        row = bench.row(
            lambda s=state, d=data: portable.form32(d, "f32", None, None, (None, None), s), data.nbytes
        )
        rows.append(["F32", fill, "Triton, one table (ours without NVRTC)", *row])
    return table(["dtype", "fill", "way", "GB/s", "of copy"], rows)


def host(bench: Bench) -> str:
    """From pinned memory, and from ordinary memory, to a sketch."""
    nbytes = min(bench.nbytes, 1 << 30)
    data = filled("gauss", torch.bfloat16, nbytes // 2).view(torch.uint8).cpu().numpy()
    rows = []
    for mib in (1, 4, 16, 64):
        block = mib << 20
        rate = nbytes / _wall(lambda b=block: _copy_only(nbytes, b), bench.rounds)
        for label, work in (
            ("read into pinned blocks", _from_pinned),
            ("from ordinary memory", _from_memory),
        ):
            counter = make_counter(DTYPES["BF16"], "cuda", block=block)
            taken = nbytes / _wall(lambda w=work, c=counter: w(c, data), bench.rounds)
            rows.append([str(mib), label, f"{rate / 1e9:.1f}", f"{taken / 1e9:.1f}", f"{taken / rate:.2f}"])
    return table(["MiB a block", "way", "copy alone GB/s", "to a sketch GB/s", "ratio"], rows)


def _copy_only(nbytes: int, block: int) -> None:
    sources, targets = _pinned(block)
    for i in range(nbytes // block):
        targets[i % 3].copy_(sources[i % 3], non_blocking=True)
    torch.cuda.synchronize()


_KEPT: dict[int, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}


def _pinned(block: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    if block not in _KEPT:
        sources = [torch.randint(0, 256, (block,), dtype=torch.uint8).pin_memory() for _ in range(3)]
        _KEPT[block] = sources, [s.to("cuda") for s in sources]
    return _KEPT[block]


def _from_pinned(counter: AnyCounter, data: np.ndarray) -> None:
    """As a reader would that fills the blocks at no cost: they hold what the last round left there."""
    done = 0
    while done < data.size:
        room = counter.room()
        assert room is not None
        counter.add(room)
        done += room.size
    counter.sketch()


def _from_memory(counter: AnyCounter, data: np.ndarray) -> None:
    for start in range(0, data.size, 1 << 20):
        counter.add(data[start : start + (1 << 20)])
    counter.sketch()


def _wall(work: Callable[[], object], rounds: int) -> float:
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def files(bench: Bench) -> str:
    """A file in the page cache to sketches: threads that read and count, or that read for the GPU."""
    rows = []
    values = filled("gauss", torch.bfloat16, bench.nbytes // 2).view(torch.uint8)
    with tempfile.NamedTemporaryFile(prefix="gaussmeter-bench-") as file:
        file.write(memoryview(values.cpu().numpy()))
        file.flush()
        for threads in (1, 2, 4, 8, 16):
            rates = []
            for device in ("cpu", "cuda"):
                counters = [make_counter(DTYPES["BF16"], device) for _ in range(threads)]
                work = partial(_read_all, file.fileno(), bench.nbytes, counters)
                rates.append(bench.nbytes / _wall(work, 5) / 1e9)
            rows.append([str(threads), *(f"{r:.1f}" for r in rates)])
    return table(["threads", "counted by them GB/s", "counted by the GPU GB/s"], rows)


def _read_all(fd: int, nbytes: int, counters: list) -> None:
    """Share a file out among counters, each with a thread of its own."""
    places = iter(range(0, nbytes, 16 << 20))
    lock = threading.Lock()

    def run(counter: AnyCounter) -> None:
        while True:
            with lock:
                start = next(places, None)
            if start is None:
                break
            _read(fd, start, min(start + (16 << 20), nbytes), counter)
        counter.sketch()

    with ThreadPoolExecutor(len(counters)) as pool:
        list(pool.map(run, counters))


_BUFFERS = threading.local()


def _read(fd: int, start: int, stop: int, counter: AnyCounter) -> None:
    while start < stop:
        if isinstance(counter, GpuCounter):
            room = counter.room()
            assert room is not None
            got = os.preadv(fd, [room[: stop - start]], start)
            counter.add(room[:got])
        else:
            if not hasattr(_BUFFERS, "one"):
                _BUFFERS.one = np.empty(1 << 20, np.uint8)
            got = os.preadv(fd, [_BUFFERS.one[: stop - start]], start)
            counter.add(_BUFFERS.one[:got])
        start += got


def products(bench: Bench) -> str:
    """Elements of B @ A counted as they are formed, against the product alone."""
    rows = []
    tally = FloatTally(CUDA)
    for rows_, columns in ((4096, 4096), (8192, 8192), (11008, 4096), (28672, 8192)):
        for rank in (4, 8, 16, 32, 64):
            b = torch.randn(rows_, rank, device="cuda") * 0.02
            a = torch.randn(rank, columns, device="cuda") * 0.02
            n, out = rows_ * columns, torch.empty(rows_, columns, device="cuda")
            product = n / seconds(lambda b=b, a=a, o=out: torch.matmul(b, a, out=o), bench.rounds)
            counted = n / seconds(lambda b=b, a=a: tally.add_product(b, a, 2.0), bench.rounds)
            tally.take()
            both = n / seconds(lambda b=b, a=a, o=out: _product_then_count(tally, b, a, o), bench.rounds)
            tally.take()
            cells = [f"{x / 1e9:,.0f}" for x in (product, counted, both)]
            rows.append([f"{rows_} x {columns}", str(rank), *cells, f"{counted / product:.2f}"])
    header = ["shape", "rank", "product G/s", "counted G/s", "product, then count G/s", "counted / product"]
    return table(header, rows)


def _product_then_count(tally: FloatTally, b: torch.Tensor, a: torch.Tensor, out: torch.Tensor) -> None:
    torch.matmul(b, a, out=out)
    tally.add(out.view(-1).view(torch.uint8))


def differences(bench: Bench) -> str:
    """Differences of tensors that lie on the GPU."""
    rows = []
    kinds = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
    for first, second in (("bf16", "bf16"), ("f16", "f16"), ("f32", "f32"), ("f32", "bf16")):
        n = bench.nbytes // 8
        base = filled("gauss", torch.float32, n)
        tuned = base + filled("half zero", torch.float32, n, sigma=1e-3).flip(0)
        a = tuned.to(kinds[first]).view(torch.uint8)
        b = base.to(kinds[second]).view(torch.uint8)
        tally = FloatTally(CUDA)
        row = bench.row(
            lambda t=tally, a=a, b=b, f=first, s=second: t.add_difference(a, f, b, s, (None, None)),
            a.nbytes + b.nbytes,
        )
        rows.append([f"{first} - {second}", *row])
    return table(["difference", "GB/s", "of copy"], rows)


def merges(bench: Bench) -> str:
    """Merges of bf16 models that lie on the GPU; GB/s in and out."""
    rows = []
    n = bench.nbytes // 8
    tensors = [filled("gauss", torch.bfloat16, n) for _ in range(5)]
    for label, outliers in (("outliers", True), ("weighted", False)):
        for count in (1, 2, 4):
            factors = [0.01] * count
            row = bench.row(
                lambda c=count, f=factors, o=outliers: merge(tensors[0], tensors[1 : c + 1], f, outliers=o),
                (count + 2) * 2 * n,
            )
            rows.append([label, str(count), *row])
    return table(["rule", "models", "GB/s", "of copy"], rows)


def rows(bench: Bench) -> str:
    """Rows, columns and neighbours of bf16 matrices that lie on the GPU, and of one core of the CPU."""
    made = []
    for columns in (1024, 4096, 14336, 65536):
        matrix = Matrix(bench.nbytes // 2 // columns, columns)
        data = filled("gauss", torch.bfloat16, matrix.elements).view(torch.uint8)
        tally = CodeTally(16, CUDA)
        measure = partial(measure_rows, data, "bf16", None, columns, matrix.band)

        def both(tally: CodeTally = tally, data: torch.Tensor = data, measure: Callable = measure) -> None:
            tally.add(data)
            measure()

        rates = [data.nbytes / seconds(work, bench.rounds) / 1e9 for work in (measure, both)]
        band = data[: matrix.start(1) * 2].cpu().numpy().view(np.uint16)
        rate = band.nbytes / _wall(partial(_rows_of_the_cpu, band, columns), 15)
        made.append([f"x {columns:,}", *(f"{r:,.1f}" for r in rates), f"{rate / 1e9:.2f}"])
    return table(["matrix", "sums GB/s", "sums and counts GB/s", "sums, a core of the CPU GB/s"], made)


def _rows_of_the_cpu(values: np.ndarray, columns: int) -> None:
    of_rows, of_columns = np.empty((2, values.size // columns)), np.empty((2, columns))
    work = np.empty(rows_on_cpu.WORK, np.float32)
    rows_on_cpu.measure_rows(values, columns, work, of_rows, of_columns, np.empty(2))


def observe(bench: Bench) -> str:
    """A model of bf16 that lies on the GPU, as `engine.observe` counts it; by the clock."""
    side, made = 4096, []
    for count in (1, max(1, bench.nbytes // (2 * side * side))):
        weights = {f"{n}.weight": filled("gauss", torch.bfloat16, side * side) for n in range(count)}
        nbytes = sum(w.nbytes for w in weights.values())
        taken = _wall(partial(observe_all, weights), 5)
        made.append([str(count), f"{nbytes / 1e9:.2f}", f"{1e3 * taken:.1f}", f"{nbytes / taken / 1e9:,.0f}"])
    return table(["matrices of 4096 x 4096", "GB", "ms", "GB/s"], made)


def commands(bench: Bench) -> str:
    """Whole commands on both devices."""
    return compare("tinyllama-1.1b", 3, (1, 0), ("cpu", "cuda"))


def tests(bench: Bench) -> str:
    """The tests of the kernels and of the commands, on this device."""
    command = [sys.executable, "-m", "pytest", "-m", "slow or not slow", "tests/gpu"]
    run = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    said = [line for line in run.stdout.splitlines() if " passed" in line or line.startswith("FAILED")]
    return "\n".join(said or run.stdout.splitlines()[-20:]) + "\n"


def _first_use() -> float:
    """Seconds of a compilation, of which a process pays one for each kernel that it uses."""
    began = time.perf_counter()
    text = (Path(nvrtc.__file__).parent / "count16.cu").read_text()
    entries = native._entries16(0)  # as many as this GPU's shared memory holds
    nvrtc.load(0, "count16", text, entries * 4, {"ENTRIES": entries, "THREADS": native.THREADS})
    return time.perf_counter() - began


PARTS = {
    "tests": tests, "counting": counting, "floats": floats, "rows": rows, "host": host, "files": files,
    "products": products, "differences": differences, "merges": merges, "observe": observe,
    "commands": commands,
}  # fmt: skip


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--gib", type=float, default=2.0, help="bytes of the inputs")
    parser.add_argument("--rounds", type=int, default=15)
    a = parser.parse_args()
    bench = Bench(a.gib, a.rounds)
    print(preamble() + machine())
    print(f"Compiling the kernel of 16-bit patterns takes {_first_use():.2f} s.")
    print(f"A copy within the GPU's memory moves {bench.copy / 1e9:,.0f} GB/s.\n")
    for name in a.parts.split(","):
        print(f"## {name}\n\n{PARTS[name](bench)}", flush=True)


if __name__ == "__main__":
    main()
