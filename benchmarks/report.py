"""Every picture and the report of a 32B model, from its warehouse alone: seconds, memory, bytes.

python benchmarks/report.py [--layout qwen2.5-32b] [--repeats 3] [--keep DIRECTORY]

The warehouse is filled with counts that Gaussian weights in bf16 could have: sigma grows with depth, one
weight of a thousand is eight times larger. Each picture is drawn by a process of its own, and then all of
them and the report by one process, which has 20 s and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from statistics import median

from common import GAUSSMETER, Cost, measure, preamble, table
from layouts import LAYOUTS

_PICTURES = {
    "histograms": ["base", "-o", "histograms.png"],
    "histograms, log axis": ["base", "--log", "-o", "tails.png"],
    "overlay": ["base", "tuned", "-o", "overlay.png"],
    "sigma": ["base", "tuned", "-p", "sigma", "-o", "sigma.png"],
    "kurtosis": ["base", "-p", "kurtosis", "-o", "kurtosis.png"],
    "ratio": ["base", "-p", "ratio", "-o", "ratio.png"],
    "simulation": ["simulation", "-o", "simulation.png"],
    "learning": ["-p", "learning", "-o", "learning.png"],
}
_TOGETHER = """
import json, sys
from engine.cli.app import app
for words in json.loads(sys.argv[1]):
    app(words, standalone_mode=False)
"""
_LIMIT_SECONDS, _LIMIT_BYTES = 20.0, 1e9


def fill(path: Path, layout: str) -> int:
    """Make the warehouse, in another process: this one must stay small. Returns how many bins it has."""
    words = [sys.executable, str(Path(__file__).with_name("report_warehouse.py")), str(path), layout]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def times(folder: Path, repeats: int) -> list[list[str]]:
    """A row for each picture and for the report, and one for all of them by one process."""
    commands = {name: ["plot", *words] for name, words in _PICTURES.items()}
    commands["report"] = ["report", "base", "-o", "report.html"]
    for words in commands.values():
        words[-1] = str(folder / words[-1])
        words += ["-q", "-w", str(folder / "stats.duckdb")]
    rows = [
        _row(name, [measure([GAUSSMETER, *words]) for _ in range(repeats)], Path(words[-4]))
        for name, words in commands.items()
    ]
    together = [sys.executable, "-c", _TOGETHER, json.dumps([*commands.values()])]
    costs = [measure(together) for _ in range(repeats)]
    wall, most = median(c.wall for c in costs), max(c.peak for c in costs)
    verdict = "within" if wall < _LIMIT_SECONDS and most < _LIMIT_BYTES else "BEYOND"
    return [*rows, _row(f"all of them by one process, {verdict} the limits", costs)]


def _row(name: str, costs: Sequence[Cost], file: Path | None = None) -> list[str]:
    wall, cpu = median(c.wall for c in costs), median(c.cpu for c in costs)
    size = f"{file.stat().st_size / 1e6:.2f}" if file else ""
    return [name, f"{wall:.2f}", f"{cpu:.2f}", f"{max(c.peak for c in costs) / 1e6:,.0f}", size]


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="qwen2.5-32b")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="leave warehouse, pictures and report here")
    a = parser.parse_args()
    print(preamble())
    with ExitStack() as stack:
        folder = a.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gaussmeter-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        warehouse = folder / "stats.duckdb"
        warehouse.unlink(missing_ok=True)
        bins = fill(warehouse, a.layout)
        shapes = LAYOUTS[a.layout].tensors().values()
        size = f"{len(shapes)} tensors, {sum(map(prod, shapes)):,} parameters"
        print(f"{a.layout}: {size}, twice; {bins:,} bins, {warehouse.stat().st_size / 1e6:.1f} MB\n")
        print(table(["picture", "s", "processor s", "peak MB", "file MB"], times(folder, a.repeats)))


if __name__ == "__main__":
    main()
