"""Let everything go wrong in the middle of scans on Ray, and compare what they counted.

python benchmarks/faults.py [--layout tinyllama-1.1b --dtype f32 | --checkpoint DIR] [--only worker,node]
                            [--task-size 8MiB] [--at 0.5] [--exact]

Each fault has a cluster of its own, of nodes that are real but for their machine, in namespaces that end
with the benchmark (unshare(1), as root or where users may have namespaces); nothing listens outside them.
The scan runs once undisturbed, then a fault strikes as soon as `--at` of the tasks are done; with --exact
1.5 is the middle of the second pass. Ends with 1 if a row differs from those of a scan without Ray, or if
a scan fails or leaves a process behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import GAUSSMETER, checkpoint, preamble, table, weight_files
from faults_nodes import ADDRESSES, cluster
from faults_rooms import alive, furnish, in_a_room
from faults_scans import Event, Run, must, run
from faults_strikes import FAULTS, Fault, Stage
from layouts import LAYOUTS
from resume import differences

HEADER = [
    "fault", "it struck", "undisturbed s", "disturbed s", "noticed after s", "tasks again", "workers lost",
    "GB read again", "result",
]  # fmt: skip
_LEAVE_SECONDS = 30.0
_FLUSH_SECONDS = 2.0  # a scan writes down what it knows so often


@dataclass(frozen=True, slots=True)
class Bench:
    """What all faults have in common.

    Attributes:
        checkpoint: that is scanned.
        scratch: for warehouses and the files of clusters.
        task_size: of the scans.
        at: the part of the tasks after which a fault strikes.
        exact: whether 32-bit floats are read twice.
    """

    checkpoint: Path
    scratch: Path
    task_size: str
    at: float
    exact: bool

    @property
    def reference(self) -> Path:
        """The warehouse of the scan without Ray."""
        return self.scratch / "reference.duckdb"

    def scan(self, warehouse: Path, *options: str) -> list[str]:
        """A scan's command."""
        words = ["--task-size", self.task_size, "-q", *(["--exact"] * self.exact), *options]
        return [GAUSSMETER, "scan", str(self.checkpoint), "-w", str(warehouse), *words]


class Striker:
    """Hears a scan, and strikes once."""

    def __init__(self, fault: Fault, stage: Stage, at: float) -> None:
        self._fault, self._stage, self._at = fault, stage, at
        self.tasks, self.struck, self.seconds = 0, 0, 0.0
        self.noticed: float | None = None

    def __call__(self, found: Run, event: Event) -> None:
        """Hear of an event."""
        if event["event"] == "Planned" and not self.tasks:
            self.tasks = event["tasks"]
        if self.struck:
            if self.noticed is None and event["event"] in ("TaskRetried", "WorkerLost"):
                self.noticed = event["seen"] - self.seconds
            self._fault.then(self._stage, event)
        elif event["event"] == "TaskDone" and len(found.of("TaskDone")) >= self._at * self.tasks:
            self.struck, self.seconds = len(found.of("TaskDone")), event["seen"]
            self._fault.strike(self._stage, found)


def disturb(bench: Bench, name: str) -> tuple[list[str], bool]:
    """Scan undisturbed and disturbed; returns a row, and whether it ended well."""
    fault, folder = FAULTS[name], bench.scratch / name
    calm, runs, striker, left = _scan(bench, fault, folder)
    again = sum(r.nbytes() for r in runs) - calm.nbytes() if fault.mortal else runs[0].read_again()
    result, good = _judge(bench, folder, runs[-1], left)
    if fault.mortal:
        late = runs[0].nbytes(_FLUSH_SECONDS)
        result += f"; the last {_FLUSH_SECONDS:g} s had read {late / 1e9:.3f} GB"
    return [
        fault.title,
        f"task {striker.struck} of {striker.tasks}, {striker.seconds:.1f} s",
        f"{calm.seconds:.1f}",
        " + ".join(f"{r.seconds:.1f}" for r in runs),
        "" if striker.noticed is None else f"{striker.noticed:.1f}",
        str(sum(len(r.of("TaskRetried")) for r in runs)),
        str(sum(len(r.of("WorkerLost")) for r in runs)),
        f"{again / 1e9:.3f}",
        result,
    ], good and bool(striker.struck)


def _scan(bench: Bench, fault: Fault, folder: Path) -> tuple[Run, list[Run], Striker, list[int]]:
    """Do it, on a cluster of its own.

    Returns:
        the undisturbed scan, the others, who struck, and workers that were left behind.
    """
    folder.mkdir()
    if fault.furnish is not None:
        fault.furnish(folder / "spill")
    with cluster(folder, fault.nodes, fault.settings, apart=fault.apart) as nodes, fault.prepare(nodes) as at:
        options = ["--ray", nodes.address]
        calm = must(run(bench.scan(folder / "calm.duckdb", *options), folder / "calm", nodes.env))
        striker = Striker(fault, at, bench.at)
        command = bench.scan(folder / "warehouse.duckdb", *options)
        runs = [run(command, folder / "events", nodes.env, striker)]
        if fault.mortal:
            runs.append(run(command, folder / "events-again", nodes.env))
        return calm, runs, striker, [] if fault.apart else _left(runs)


def _left(runs: list[Run]) -> list[int]:
    """Workers that are still there some time after their scans."""
    pids = [event["pid"] for r in runs for event in r.of("WorkerJoined")]
    until = time.monotonic() + _LEAVE_SECONDS
    while time.monotonic() < until and any(map(alive, pids)):
        time.sleep(0.1)
    return [pid for pid in pids if alive(pid)]


def _judge(bench: Bench, folder: Path, last: Run, left: list[int]) -> tuple[str, bool]:
    if last.code != 0:
        sys.stderr.write(last.output[-3000:] + "\n")
        return f"ended with {last.code}" if last.code is not None else "hung", False
    found = differences(bench.reference, folder / "warehouse.duckdb")
    rows, differ = (sum(pair[i] for pair in found.values()) for i in (0, 1))
    words = f"{differ:,} of {rows:,} rows differ" if differ else f"the same {rows:,} rows"
    return words + (f", {len(left)} processes left" if left else ""), not differ and not left


def inside(bench: Bench, names: list[str]) -> bool:
    """Run the faults in a room; returns whether all ended well."""
    furnish(ADDRESSES)
    command = bench.scan(bench.reference)
    calm = must(run(command, bench.scratch / "reference", dict(os.environ)))
    print(f"Without Ray: {calm.seconds:.1f} s, {calm.nbytes() / 1e9:.2f} GB read.\n", flush=True)
    rows, good = [], True
    for name in names:
        row, well = disturb(bench, name)
        sys.stderr.write(" | ".join(row) + "\n")
        rows.append(row)
        good &= well
    print(table(HEADER, rows))
    return good


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="tinyllama-1.1b")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--fill", default="gauss")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--only", default=",".join(FAULTS), help="some of " + ",".join(FAULTS))
    parser.add_argument("--task-size", default="8MiB")
    parser.add_argument("--at", type=float, default=0.5)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # the scratch folder of a room
    a = parser.parse_args()
    names = [name for name in a.only.split(",") if name]
    if unknown := [name for name in names if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}")
    if a.inside is not None:
        bench = Bench(a.checkpoint.resolve(), a.inside, a.task_size, a.at, a.exact)
        sys.exit(int(not inside(bench, names)))
    print(preamble(), flush=True)
    with (
        checkpoint(a.layout, a.checkpoint, fill=a.fill, dtype=a.dtype) as directory,
        tempfile.TemporaryDirectory(prefix="gm-", ignore_cleanup_errors=True) as scratch,
    ):
        weight_files(directory)
        words = [*sys.argv[1:], "--checkpoint", str(directory), "--inside", scratch]
        code = in_a_room([sys.executable, str(Path(__file__).resolve()), *words])
        print("Every row is the same." if code == 0 else "NOT every scan ended well.")
        sys.exit(code)


if __name__ == "__main__":
    main()
