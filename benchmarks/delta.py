"""Time whole processes: the difference of checkpoints against the scan of one, and against `cat` of all.

python benchmarks/delta.py [--layout tinyllama-1.1b] [--rounds 5]
                           [--cases scan,pair,half,frozen,three | scan,pair,cat --fill sparse]

Every command runs once uncounted, then all of them once per round, in order. `pair` is one tuned checkpoint
all of whose elements have changed, `half` one of which half of the elements have, `frozen` a copy; `three`
are three tuned checkpoints against one base; `cat` reads all files of a pair.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from common import GAUSSMETER, HERE, checkpoint, preamble, scan_command, table, weight_files
from layouts import LAYOUTS
from scan import run_rounds

CASES = ("scan", "pair", "half", "frozen", "three", "cat")
_SHARES = {"pair": [0.0], "half": [0.5], "frozen": [1.0], "three": [0.0, 0.0, 0.0]}


def tuned_beside(base: Path, folder: Path, cases: list[str], fill: str) -> dict[str, list[Path]]:
    """The tuned checkpoints of each case, written by other processes where they are missing."""
    made: dict[str, list[Path]] = {}
    for case in cases:
        for number, share in enumerate(_SHARES.get(case, [])):
            out = folder / f"tuned-{share}-{number}"
            if not out.exists():
                words = ["--frozen", str(share), "--seed", str(number + 1)]
                if fill == "sparse":
                    command = [str(HERE / "checkpoints.py"), base.name, str(out), "--fill", fill]
                else:
                    command = [str(HERE / "tuned.py"), str(base), str(out), *words]
                subprocess.run([sys.executable, *command], check=True)
            made.setdefault(case, []).append(out)
    return made


def delta_command(base: Path, tuned: list[Path], warehouse: Path) -> list[str]:
    """Our delta, with a warehouse of its own."""
    return [GAUSSMETER, "delta", str(base), *map(str, tuned), "-w", str(warehouse), "--force", "-q"]


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="tinyllama-1.1b")
    parser.add_argument("--fill", default="gauss")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="scan,pair,half,frozen,three")
    a = parser.parse_args()
    cases = a.cases.split(",")
    if set(cases) - set(CASES):
        sys.exit(f"--cases takes some of {', '.join(CASES)}")
    print(preamble())
    with (
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as directory,
        checkpoint(a.layout, fill=a.fill) as base,
    ):
        scratch = Path(directory)
        home = scratch / a.layout
        home.symlink_to(base)
        tuned = tuned_beside(home, scratch, cases, a.fill)
        commands: dict[str, Callable[[], list[str]]] = {}
        for case in cases:
            warehouse = scratch / f"{case}.duckdb"
            if case == "scan":
                commands[case] = partial(scan_command, base, warehouse)
            elif case == "cat":
                files = [*weight_files(base), *weight_files(tuned["pair"][0])]
                commands[case] = partial(list, ["cat", *map(str, files)])
            else:
                commands[case] = partial(delta_command, base, tuned[case], warehouse)
        costs = run_rounds(commands, a.rounds, lambda: None)
    first = cases[0]
    rows = []
    for case, runs in costs.items():
        ratio = median(r.wall / o.wall for r, o in zip(runs, costs[first], strict=True))
        seconds = [r.wall for r in runs]
        rows.append([
            case, f"{min(seconds):.2f}", f"{median(seconds):.2f}", f"{max(seconds):.2f}",
            f"{median(r.cpu for r in runs):.2f}", f"{max(r.peak for r in runs) / 2**20:,.0f}", f"{ratio:.2f}",
        ])  # fmt: skip
    print(table(["process", "min s", "median s", "max s", "CPU s", "peak MiB", f"times {first}"], rows))


if __name__ == "__main__":
    main()
