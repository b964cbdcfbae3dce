"""Time whole processes: three checkpoints merged into one by us and by mergekit, beside `cat` and `cp`.

python benchmarks/merge_speed.py [--layout tinyllama-1.1b] [--rounds 5] [--folder DIR] [--venv DIR]
                                 [--cases copy,synced,task_arithmetic,...]

`copy` is what a merge cannot do without: `cat` of all three inputs to nowhere, and `cp` of a file as large as
the result; `synced` the same, waiting until the copy is on the disk. `linear`, `task_arithmetic`, `ties` and
`outlier` are ours, `mergekit task_arithmetic` and the like mergekit's, from the same configuration: a base
and two tuned checkpoints in bf16, `dtype: bfloat16`. Ours count what they write, and for `ties` and `outlier`
the differences too, into a new warehouse. mergekit runs on as many threads as there are cores. Every case
runs once uncounted, then all of them once per round, in order; results are removed, and the disk is left to
come to rest, before each. The caches are warm where memory is large enough for the inputs.

The three checkpoints (6.6 GB) stay in the folder for the next time; a result takes 2.2 GB more. mergekit
takes some 10 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import GAUSSMETER, HERE, Cost, measure, preamble, table, weight_files
from layouts import LAYOUTS
from mergekit_peer import Mergekit, add_venv, install, write_config

PEER = "mergekit "
CASES = (
    "copy", "synced", "task_arithmetic", "linear", "ties", "outlier",
    f"{PEER}task_arithmetic", f"{PEER}linear", f"{PEER}ties",
)  # fmt: skip
PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "task_arithmetic": ({"weight": 0.5}, {}),
    "linear": ({"weight": 1.0}, {}),
    "ties": ({"weight": 0.5, "density": 0.5}, {}),
    "outlier": ({}, {"t": 3.0}),
}
"""Parameters of each model, and those of all."""

DEFAULT = ",".join(c for c in CASES if c not in ("synced", f"{PEER}linear"))


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise about two cases.

    Attributes:
        over: the case that is divided.
        under: by which.
        limit: of the quotient.
        least: whether that is the least, or the most.
    """

    over: str
    under: str
    limit: float
    least: bool


BARS = (
    Bar("task_arithmetic", "copy", 2.5, False),
    Bar("linear", "copy", 2.5, False),
    Bar("ties", "copy", 2.5, False),
    Bar("outlier", "copy", 2.5, False),
    Bar(f"{PEER}task_arithmetic", "task_arithmetic", 5, True),
    Bar(f"{PEER}ties", "ties", 20, True),
)
PEAK = 700 * 10**6
"""Bytes of memory that none of our merges may take."""


def models_in(folder: Path, layout: str) -> list[Path]:
    """A base and two tuned checkpoints, written by other processes where they are missing."""
    base = folder / layout
    tuned = [folder / f"{layout}-tuned{k}" for k in (1, 2)]
    commands = {base: ["checkpoints.py", layout, str(base)]}
    for k, path in enumerate(tuned, 1):
        commands[path] = ["tuned.py", str(base), str(path), "--seed", str(k)]
    for path, (script, *words) in commands.items():
        if not (path / "written").exists():
            subprocess.run([sys.executable, str(HERE / script), *words], check=True)
            (path / "written").touch()
    return [base, *tuned]


def config_of(method: str, models: list[Path]) -> dict[str, Any]:
    """A configuration that both read."""
    own, shared = PARAMETERS[method]
    merged = models if method == "linear" else models[1:]
    config: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": str(m)} | ({"parameters": own} if own else {}) for m in merged],
        "dtype": "bfloat16",
    }
    config |= {"parameters": shared} if shared else {}
    return config | ({} if method == "linear" else {"base_model": str(models[0])})


def commands_of(case: str, models: list[Path], out: Path, mergekit: Mergekit | None) -> list[list[str]]:
    """The processes of a case, run one after the other."""
    if case in ("copy", "synced"):
        files = [str(f) for m in models for f in weight_files(m)]
        copy = ["cp", "--reflink=never", *(str(f) for f in weight_files(models[0])), str(out)]
        return [["cat", *files], copy, *([["sync", "-f", str(out)]] if case == "synced" else [])]
    method = case.removeprefix(PEER)
    config = write_config(out.parent / f"{method}.yaml", config_of(method, models))
    if case.startswith(PEER):
        assert mergekit is not None
        return [mergekit.command(config, out, "--quiet", "--no-copy-tokenizer")]
    warehouse = str(out.with_suffix(".duckdb"))
    return [[GAUSSMETER, "merge", str(config), str(out), "-w", warehouse, "--quiet"]]


def clear(out: Path) -> None:
    """Remove a result, and the warehouse beside it."""
    shutil.rmtree(out, ignore_errors=True)
    for old in out.parent.glob(f"{out.name}.duckdb*"):
        old.unlink()


def run(case: str, models: list[Path], out: Path, mergekit: Mergekit | None) -> Cost:
    """Run a case into an empty place."""
    clear(out)
    if case in ("copy", "synced"):
        out.mkdir()
    os.sync()
    costs = [measure(words) for words in commands_of(case, models, out, mergekit)]
    wanted = sum(f.stat().st_size for f in weight_files(models[0]))
    found = sum(f.stat().st_size for f in out.glob("*.safetensors"))
    if abs(found - wanted) > 1 << 20:
        sys.exit(f"{case} has written {found:,} bytes of weights, the base has {wanted:,}")
    clear(out)
    return Cost(sum(c.wall for c in costs), sum(c.cpu for c in costs), max(c.peak for c in costs))


def rounds_of(cases: list[str], rounds: int, one: Callable[[str], Cost]) -> dict[str, list[Cost]]:
    """Run every case once uncounted, then in turn."""
    for case in cases:
        one(case)
    costs: dict[str, list[Cost]] = {case: [] for case in cases}
    for number in range(rounds):
        for case in cases:
            costs[case].append(one(case))
            print(f"round {number + 1}: {case} {costs[case][-1].wall:.2f} s", file=sys.stderr)
    return costs


def ratio(costs: dict[str, list[Cost]], over: str, under: str) -> float:
    """Median of the rounds' quotients of wall times."""
    return median(a.wall / b.wall for a, b in zip(costs[over], costs[under], strict=True))


def report(costs: dict[str, list[Cost]]) -> str:
    """The table of times, and that of the promises."""
    rows = []
    for case, runs in costs.items():
        walls = [r.wall for r in runs]
        rows.append([
            case, f"{min(walls):.2f}", f"{median(walls):.2f}", f"{max(walls):.2f}",
            f"{median(r.cpu for r in runs):.2f}", f"{max(r.peak for r in runs) / 1e6:,.0f}",
            f"{ratio(costs, case, 'copy'):.2f}" if "copy" in costs else "",
        ])  # fmt: skip
    header = ["process", "min s", "median s", "max s", "CPU s", "peak MB", "times copy"]
    held = []
    for bar in BARS:
        if {bar.over, bar.under} <= set(costs):
            found = ratio(costs, bar.over, bar.under)
            holds = found >= bar.limit if bar.least else found <= bar.limit
            limit = f"{'at least' if bar.least else 'at most'} {bar.limit:g}"
            held.append([f"{bar.over} / {bar.under}", limit, f"{found:.2f}", "yes" if holds else "no"])
    for case in PARAMETERS:
        if case in costs:
            peak = max(r.peak for r in costs[case])
            holds = "yes" if peak < PEAK else "no"
            held.append([f"peak of {case}, MB", f"below {PEAK / 1e6:.0f}", f"{peak / 1e6:,.0f}", holds])
    return table(header, rows) + "\n" + table(["promise", "limit", "measured", "holds"], held)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_venv(parser)
    parser.add_argument("--layout", choices=LAYOUTS, default="tinyllama-1.1b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=DEFAULT, help=f"some of {', '.join(CASES)}; default {DEFAULT}")
    default = Path(tempfile.gettempdir()) / "gaussmeter-merges"
    parser.add_argument("--folder", type=Path, default=default, help=f"default {default}")
    a = parser.parse_args()
    cases = a.cases.split(",")
    if unknown := [c for c in cases if c not in CASES]:
        parser.error(f"unknown case {unknown[0]!r}; there are {', '.join(CASES)}")
    mergekit = install(a.venv) if any(c.startswith(PEER) for c in cases) else None
    a.folder.mkdir(parents=True, exist_ok=True)
    models = models_in(a.folder, a.layout)
    print(preamble())
    if mergekit is not None:
        print("Beside:", ", ".join(f"{name} {version}" for name, version in mergekit.versions().items()))
    costs = rounds_of(cases, a.rounds, lambda case: run(case, models, a.folder / "merged", mergekit))
    nbytes = sum(f.stat().st_size for m in models for f in weight_files(m))
    print(f"\n{a.layout}, bf16: three inputs of {nbytes / 1e9:.2f} GB in all, {a.rounds} rounds.\n")
    print(report(costs))
    print("Times copy, and promises: medians of the rounds' ratios. Peak: pages of mapped files among it.")


if __name__ == "__main__":
    main()
