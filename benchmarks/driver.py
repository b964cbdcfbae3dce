"""What bounds a census: the driver's memory and pace, the warehouse, what is read at the beginning.

python benchmarks/driver.py [--checkpoints 1000] [--tensors 800] [--subjects 0,1000,10000] [--rounds 3]

The headers of checkpoints of a 44B model's size are written, with holes for weights, and taken through
whole censuses whose workers answer at once: see `simulation.py`. Every number is of a process of its own.
The census of all checkpoints takes half a second for each and more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import HERE, preamble, table

Numbers = dict[str, float]

_FEW = 20  # checkpoints, where more would tell no more
_CODES = 3000  # of a matrix of Gaussian weights, see benchmarks/warehouse.py


class Bench:
    """Runs `simulation.py` in a scratch folder.

    Args:
        scratch: the folder.
        tensors: of each checkpoint.
    """

    def __init__(self, scratch: Path, tensors: int) -> None:
        self.headers, self._scratch, self._tensors = scratch / "headers", scratch, tensors

    def write(self, checkpoints: int) -> None:
        """Write the checkpoints."""
        words = ["--checkpoints", str(checkpoints), "--tensors", str(self._tensors)]
        self._start("write", str(self.headers), *words)

    def run(self, what: str, *, headers: bool = True, **options: int) -> Numbers:
        """One run with a new warehouse; what it measured."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            places = [str(self.headers)] if headers else []
            places += [] if what == "opening" else [f"{folder}/stats.duckdb"]
            words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
            answer = self._start(what, *places, *words)
        print(f"{what} {options}: {answer.strip()}", file=sys.stderr)
        numbers: Numbers = json.loads(answer)
        return numbers

    def _start(self, *words: str) -> str:
        command = [sys.executable, str(HERE / "simulation.py"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def censuses(bench: Bench, checkpoints: int, tensors: int) -> str:
    """Memory, time and room of censuses, and of one with as many codes as real weights have."""
    counts = sorted({checkpoints, max(checkpoints // 10, 1)})
    runs = [(n, 1, bench.run("census", checkpoints=n, codes=1)) for n in counts]
    few = min(_FEW, checkpoints)
    runs.append((few, _CODES, bench.run("census", checkpoints=few, codes=_CODES)))
    rows = [
        [f"{n:,}", f"{n * tensors:,}", str(codes), f"{r['tasks']:,.0f}", f"{r['seconds']:.1f}",
         f"{r['processor_seconds'] / n:.2f}", f"{r['peak'] / 2**20:,.0f}",
         f"{r['warehouse_bytes'] / 1e6:,.1f}"]
        for n, codes, r in runs
    ]  # fmt: skip
    header = ["checkpoints", "tensors", "codes a tensor", "tasks", "s", "CPU s a checkpoint", "peak MiB",
              "warehouse MB"]  # fmt: skip
    return table(header, rows)


def dispatch(bench: Bench, checkpoints: int, rounds: int) -> str:
    """Tasks a second, for few workers and for many."""
    rows = []
    few = min(_FEW, checkpoints)
    for workers in (64, 1000):
        runs = [bench.run("dispatch", checkpoints=few, workers=workers) for _ in range(rounds)]
        rates = [r["tasks"] / r["seconds"] for r in runs]
        rows.append([f"{workers:,}", f"{runs[0]['tasks']:,.0f}",
                     *(f"{pick(rates):,.0f}" for pick in (min, median, max))])  # fmt: skip
    return table(["simulated workers", "tasks", "min tasks/s", "median tasks/s", "max tasks/s"], rows)


def transactions(bench: Bench, sizes: list[int]) -> str:
    """Milliseconds of a checkpoint's transactions, by what is in the warehouse already."""
    rows = []
    for subjects in sizes:
        r = bench.run("transactions", subjects=subjects)
        times = [f"{1000 * r[name]:.0f}" for name in ("empty", "begin", "rows", "finish")]
        rows.append([f"{subjects:,}", f"{r['warehouse_bytes'] / 1e6:,.0f}", *times])
    header = ["subjects there", "MB", "empty ms", "begin ms", "rows ms", "finish ms"]
    return table(header, rows)


def others(bench: Bench) -> str:
    """What is paid once for each checkpoint on the threads that open them, and once for each census."""
    opening = bench.run("opening", checkpoints=_FEW)
    lines = [
        f"- opening a checkpoint {1000 * opening['open']:.1f} ms, planning it {1000 * opening['plan']:.1f} ms"
    ]
    for subjects in (10_000, 100_000):
        r = bench.run("known", headers=False, subjects=subjects)
        lines.append(
            f"- what is known of {subjects:,} subjects: read in {r['seconds']:.2f} s, "
            f"{r['bytes'] / 2**20:,.0f} MiB, {r['bytes'] / subjects:,.0f} bytes each"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--tensors", type=int, default=800)
    parser.add_argument("--subjects", default="0,1000,10000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="dispatch,others,transactions,censuses")
    a = parser.parse_args()
    print(preamble())
    with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch:
        bench = Bench(Path(scratch), a.tensors)
        bench.write(a.checkpoints)
        parts = {
            "dispatch": lambda: dispatch(bench, a.checkpoints, a.rounds),
            "others": lambda: others(bench),
            "transactions": lambda: transactions(bench, [int(word) for word in a.subjects.split(",")]),
            "censuses": lambda: censuses(bench, a.checkpoints, a.tensors),
        }
        for name in a.only.split(","):
            print(parts[name](), flush=True)
    print(f"Load at the end {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
