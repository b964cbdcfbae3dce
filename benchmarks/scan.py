"""Time whole processes: our scan of a checkpoint against other ways to look at it, in turn.

python benchmarks/scan.py [--layout tinyllama-1.1b | --checkpoint DIR] [--rounds 5] [--cold]
                          [--against torch,weightlens,bincount,cat] [--peer-python PATH]

Every command runs once uncounted, then all of them once per round, in order. With --cold the
checkpoint's pages are dropped from the page cache before every run, and that is verified.
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

from common import HERE, Cost, checkpoint, measure, memory_bytes, preamble, scan_command, table, weight_files
from layouts import LAYOUTS
from pagecache import drop

OURS = "gaussmeter scan"
PEERS = ("torch", "weightlens", "weightlens-parallel", "bincount", "cat")
_NEEDS = {
    "torch": ("torch", "safetensors"),
    "weightlens": ("weightlens",),
    "weightlens-parallel": ("weightlens",),
    "bincount": ("numpy",),
    "cat": (),
}


def peer_command(peer: str, directory: Path, python: str) -> list[str]:
    """What a user of the peer would type; of weightlens, what its README shows."""
    files = weight_files(directory)
    index = directory / "model.safetensors.index.json"
    one = str(index if index.exists() else files[0])
    lens = [str(Path(python).with_name("lens")), "analyze", one]
    return {
        "torch": [python, str(HERE / "peers" / "paper_torch.py"), str(directory)],
        "bincount": [python, str(HERE / "peers" / "numpy_bincount.py"), str(directory)],
        "weightlens": lens,
        "weightlens-parallel": [*lens, "--num-workers", "auto"],
        "cat": ["cat", *map(str, files)],
    }[peer]


def is_installed(peer: str, python: str) -> bool:
    """Whether the peer's Python finds the packages that it needs."""
    look = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {_NEEDS[peer]!r})))"
    try:
        return subprocess.run([python, "-c", look], check=False).returncode == 0
    except OSError:
        return False


def run_rounds(
    commands: dict[str, Callable[[], list[str]]], rounds: int, before: Callable[[], None]
) -> dict[str, list[Cost]]:
    """Run every command once uncounted, then in turn.

    Args:
        commands: makes each command anew, by label.
        rounds: how often.
        before: called before every counted run.
    """
    for make in commands.values():
        measure(make())
    costs: dict[str, list[Cost]] = {label: [] for label in commands}
    for number in range(rounds):
        for label, make in commands.items():
            before()
            costs[label].append(measure(make()))
            print(f"round {number + 1}: {label} {costs[label][-1].wall:.2f} s", file=sys.stderr)
    return costs


def report(costs: dict[str, list[Cost]], nbytes: int, absent: list[str]) -> str:
    """The table: wall time, its ratio to ours in the same round, processor time, memory."""
    rows = []
    for label, runs in costs.items():
        walls = sorted(c.wall for c in runs)
        ratios = [c.wall / ours.wall for c, ours in zip(runs, costs[OURS], strict=True)]
        rows.append([
            label, f"{walls[0]:.2f}", f"{median(walls):.2f}", f"{walls[-1]:.2f}",
            f"{nbytes / median(walls) / 1e9:.2f}", f"{median(c.cpu for c in runs):.2f}",
            f"{max(c.peak for c in runs) / 2**20:,.0f}", f"{median(ratios):.2f}",
        ])  # fmt: skip
    rows += [[peer, "not installed", *[""] * 6] for peer in absent]
    header = ["process", "min s", "median s", "max s", "GB/s", "CPU s", "peak MiB", "times ours"]
    return table(header, rows)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--layout", choices=LAYOUTS, default="tinyllama-1.1b", help="a layout of checkpoints.py"
    )
    parser.add_argument("--dtype", default="bf16", help="of the generated checkpoint")
    parser.add_argument("--fill", default="gauss", help="of the generated checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="an existing directory instead")
    parser.add_argument("--against", default="torch,weightlens,bincount,cat", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has the peers")
    a = parser.parse_args()
    peers = [peer for peer in a.against.split(",") if peer]
    if unknown := [peer for peer in peers if peer not in PEERS]:
        parser.error(f"unknown peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    absent = [peer for peer in peers if not is_installed(peer, a.peer_python)]
    with (
        checkpoint(a.layout, a.checkpoint, dtype=a.dtype, fill=a.fill) as directory,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch,
    ):
        files = weight_files(directory)
        if a.cold and (why := drop(files)):
            print(f"No cold runs: {why}.")
            return

        def ours() -> list[str]:
            warehouse = Path(scratch) / "stats.duckdb"
            warehouse.unlink(missing_ok=True)
            return scan_command(directory, warehouse)

        def cool() -> None:
            if a.cold and (why := drop(files)):
                sys.exit(f"No more cold runs: {why}.")

        commands: dict[str, Callable[[], list[str]]] = {OURS: ours}
        for peer in peers:
            if peer not in absent:
                commands[peer] = partial(peer_command, peer, directory, a.peer_python)
        costs = run_rounds(commands, a.rounds, cool)
        nbytes = sum(file.stat().st_size for file in files)
    what = a.checkpoint.name if a.checkpoint else f"{a.layout}, {a.dtype}, {a.fill}"
    fits = nbytes < memory_bytes()
    state = "cold" if a.cold else "warm" if fits else "warm, but smaller than the files,"
    print(preamble())
    print(f"{what}: {nbytes / 1e9:.2f} GB in {len(files)} files, {state} cache, {a.rounds} rounds.\n")
    print(report(costs, nbytes, absent))
    print("Times ours: median over the rounds of the wall time divided by ours in the same round.")
    print("Peak: resident memory, pages of mapped files among it.")


if __name__ == "__main__":
    main()
