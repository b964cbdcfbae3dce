"""Whole commands on the CPU and on the GPU: `gaussmeter scan`, with `--iid` too, `delta`, `delta --adapter`.

python benchmarks/gpu_commands.py [--layout tinyllama-1.1b] [--rounds 3] [--workers 1,0] [--devices cpu,cuda]

Every command is a process of its own, on files in the page cache, and the counts of both must be the same.
The first seconds of a process on the GPU go to loading torch; `--devices cpu,cpu` tries the script where
there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from adapters import make
from common import HERE, checkpoint, measure, preamble, table, weight_files

ROOT = HERE.parent
ENGINE = [sys.executable, "-m", "engine"]
_COUNTS = (
    "SELECT md5(string_agg(concat_ws(',', t.ordinal, b.code, b.n, b.low_sum, b.low_square_sum), ';' "
    "ORDER BY t.ordinal, b.code)) AS counts, "
    "(SELECT md5(string_agg(i::VARCHAR, ';' ORDER BY tensor_id)) FROM iid i) AS sums "
    "FROM bins b JOIN tensors t USING (tensor_id)"
)


def commands(base: Path, tuned: Path, adapter: Path) -> dict[str, list[str]]:
    """What is run, by what it is called."""
    return {
        "scan": ["scan", str(base)],
        "scan --iid": ["scan", str(base), "--iid"],
        "delta": ["delta", str(base), str(tuned)],
        "delta --adapter": ["delta", "--adapter", str(adapter)],
    }


def compare(layout: str, rounds: int, workers: Sequence[int], devices: Sequence[str]) -> str:
    """Time every command on both devices.

    Args:
        layout: of the checkpoints, see `layouts.py`.
        rounds: of which the median counts, one device after the other.
        workers: numbers of threads; 0 for one a core.
        devices: the two that are compared.
    """
    rows = []
    with (
        checkpoint(layout, fill="gauss") as base,
        checkpoint(layout, fill="gauss", seed="1") as tuned,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch,
    ):
        adapter = Path(scratch) / "adapter"
        adapter.mkdir()
        make(adapter, layout, 16, dora=False)
        for label, words in commands(base, tuned, adapter).items():
            for threads in workers:
                rows.append([label, str(threads or "all"), *_both(words, threads, rounds, devices, scratch)])
        size = sum(f.stat().st_size for f in weight_files(base))
    header = ["command", "threads", *(f"{d} s" for d in devices), "ratio", "counts"]
    return f"A checkpoint of {size / 1e9:.1f} GB ({layout}, bf16).\n\n" + table(header, rows)


def _both(words: list[str], threads: int, rounds: int, devices: Sequence[str], scratch: str) -> list[str]:
    more = ["-j", str(threads)] if threads else []
    warehouses = [Path(scratch) / f"{number}.duckdb" for number in range(2)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 1):  # the first warms the caches up
        for number, device in enumerate(devices):
            place = ["-w", str(warehouses[number]), "--force", "-q", "--device", device]
            times[number].append(measure([*ENGINE, *words, *more, *place]).wall)
    found = {_counts(warehouse) for warehouse in warehouses}
    for warehouse in warehouses:
        warehouse.unlink()
    first, second = (median(t[1:]) for t in times)
    equal = "the same" if len(found) == 1 else "DIFFERENT"
    return [f"{first:.2f}", f"{second:.2f}", f"{first / second:.2f}", equal]


def _counts(warehouse: Path) -> str:
    command = [*ENGINE, "sql", _COUNTS, "-w", str(warehouse), "--format", "csv"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", default="tinyllama-1.1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,0")
    parser.add_argument("--devices", default="cpu,cuda")
    a = parser.parse_args()
    workers = [int(word) for word in a.workers.split(",")]
    print(preamble())
    print(compare(a.layout, a.rounds, workers, a.devices.split(",")))


if __name__ == "__main__":
    main()
