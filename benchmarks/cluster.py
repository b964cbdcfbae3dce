"""What a Ray cluster costs, and what its actors bring: whole processes, both sides in turn.

python benchmarks/cluster.py overhead [--layout qwen2.5-32b | --checkpoint DIR] [--workers 2] [--rounds 5]
python benchmarks/cluster.py scaling [--layout llama-7b | --checkpoint DIR] [--actors 1,8] [--rate 50e6]
                                     [--rounds 2]

`overhead` scans a checkpoint with threads and on a private local cluster. `scaling` has a web server send no
connection more than --rate bytes a second, and every actor read by one connection: storage that is so slow
for each machine. Actors that wait for it take no cores, so a machine of two can have eight of them.

Ray's workers give way to other processes (nice 15), threads do not; here neither does, so that both have the
same share of a machine that does other things as well. Start-up is what the same command takes for a
checkpoint of a few hundred kB. The weights are holes unless --fill or --checkpoint says otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from common import checkpoint, measure, preamble, scan_command, table, weight_files
from layouts import LAYOUTS
from serve import served

Walls = dict[str, list[float]]


def in_turn(commands: dict[str, list[str]], rounds: int) -> Walls:
    """Wall times of commands, each run once a round, in order."""
    walls: Walls = {label: [] for label in commands}
    for number in range(rounds):
        for label, command in commands.items():
            walls[label].append(measure(command).wall)
            load = os.getloadavg()[0]
            print(f"round {number + 1}: {label} {walls[label][-1]:.2f} s, load {load:.1f}", file=sys.stderr)
    return walls


@contextmanager
def both(given: argparse.Namespace, layout: str) -> Iterator[tuple[Path, Path, Path]]:
    """The checkpoint, the tiny one, and the path of a warehouse."""
    with (
        checkpoint(given.layout or layout, given.checkpoint, fill=given.fill) as directory,
        checkpoint("micro") as tiny,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch,
    ):
        yield directory, tiny, Path(scratch) / "stats.duckdb"


def overhead(given: argparse.Namespace) -> None:
    """Print what the cluster costs beyond its start."""
    workers = ["--workers", str(given.workers)]
    ways = {"threads": workers, "ray": [*workers, "--ray", "local"]}
    with both(given, "qwen2.5-32b") as (directory, tiny, warehouse):
        commands = {
            f"{way}, {what}": scan_command(place, warehouse, *options)
            for what, place in (("tiny", tiny), ("large", directory))
            for way, options in ways.items()
        }
        walls = in_turn(commands, given.rounds)
        nbytes = sum(file.stat().st_size for file in weight_files(directory))
    rows = []
    for way in ways:
        whole, start = walls[f"{way}, large"], walls[f"{way}, tiny"]
        net = [a - b for a, b in zip(whole, start, strict=True)]
        rows.append([way, *_three(whole), f"{median(start):.2f}", f"{median(net):.2f}",
                     f"{nbytes / median(net) / 1e9:.2f}"])  # fmt: skip
    header = ["way", "min s", "median s", "max s", "start-up s", "without s", "GB/s"]
    print(f"{nbytes / 1e9:.2f} GB, {given.workers} workers, {given.rounds} rounds\n")
    print(table(header, rows))
    print(_ratios(walls))


def _ratios(walls: Walls) -> str:
    """The two ways compared, round by round."""
    threads, threads_start = walls["threads, large"], walls["threads, tiny"]
    ray, ray_start = walls["ray, large"], walls["ray, tiny"]
    rounds = list(zip(ray, ray_start, threads, threads_start, strict=True))
    bar = [(r - rs) / t for r, rs, t, _ in rounds]
    net = [(r - rs) / (t - ts) for r, rs, t, ts in rounds]
    return "\n".join([
        f"- Ray without its start-up, over threads: {_spread(bar)}",
        f"- each without its start-up: {_spread(net)}",
    ])  # fmt: skip


def scaling(given: argparse.Namespace) -> None:
    """Print how many times as fast several actors are as one."""
    counts = [int(word) for word in given.actors.split(",")]
    with (
        both(given, "llama-7b") as (directory, tiny, warehouse),
        served("web", directory, given.rate) as large_url,
        served("web", tiny, given.rate) as tiny_url,
    ):
        index = "model.safetensors.index.json"
        address = {
            "large": f"{large_url}/{_entry(directory, index)}",
            "tiny": f"{tiny_url}/{_entry(tiny, index)}",
        }
        commands = {
            f"{n} {what}": scan_command(
                address[what], warehouse, "--ray", "local", "--workers", str(n), "--ranges", "1"
            )
            for n in counts
            for what in ("tiny", "large")
        }
        walls = in_turn(commands, given.rounds)
        nbytes = sum(file.stat().st_size for file in weight_files(directory))
    first = counts[0]
    rows = []
    for n in counts:
        whole, start = walls[f"{n} large"], walls[f"{n} tiny"]
        net = median(a - b for a, b in zip(whole, start, strict=True))
        raw = [a / b for a, b in zip(walls[f"{first} large"], whole, strict=True)]
        rows.append([
            str(n), *_three(whole), f"{median(start):.2f}", f"{net:.2f}", f"{nbytes / net / 1e6:.0f}",
            f"{median(raw):.2f}", f"{median(_without(walls, first, n)):.2f}",
        ])  # fmt: skip
    header = ["actors", "min s", "median s", "max s", "start-up s", "without s", "MB/s", "times as fast",
              "without start-up"]  # fmt: skip
    print(
        f"{nbytes / 1e9:.2f} GB, {given.rate / 1e6:.0f} MB/s for each actor, {given.rounds} rounds; "
        f"times as fast as {first}, medians over the rounds\n"
    )
    print(table(header, rows))


def _without(walls: Walls, one: int, other: int) -> list[float]:
    """How many times as fast one number of actors is as another, round by round, start-up taken off both."""
    names = (f"{one} large", f"{one} tiny", f"{other} large", f"{other} tiny")
    return [(a - b) / (c - d) for a, b, c, d in zip(*(walls[name] for name in names), strict=True)]


def _entry(directory: Path, index: str) -> str:
    return index if (directory / index).exists() else weight_files(directory)[0].name


def _three(values: list[float]) -> list[str]:
    return [f"{pick(values):.2f}" for pick in (min, median, max)]


def _spread(values: list[float]) -> str:
    return f"median {median(values):.3f}, from {min(values):.3f} to {max(values):.3f}"


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["overhead", "scaling"])
    parser.add_argument("--layout", choices=LAYOUTS)
    parser.add_argument("--checkpoint", type=Path, help="an existing directory instead")
    parser.add_argument("--fill", default="sparse")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--actors", default="1,8")
    parser.add_argument("--rate", type=float, default=50e6, help="bytes a second of each connection")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
    print(preamble())
    {"overhead": overhead, "scaling": scaling}[given.what](given)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
