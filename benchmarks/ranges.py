"""Does reading by parallel ranges scale? A server limits each connection; how fast is a scan with 1 to 8?

python benchmarks/ranges.py [--checkpoint DIR] [--ranges 1,2,4,8] [--rate 20e6] [--rounds 3]

Whole processes, in turn. The share of linear counts the time that a scan takes beyond the transfer (start,
statistics, warehouse) against it; a second column leaves out the time of a scan of the same files from disk.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from common import GAUSSMETER, checkpoint, measure, preamble, table, weight_files
from serve import served


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--ranges", default="1,2,4,8")
    parser.add_argument("--rate", type=float, default=20e6, help="bytes a second of each connection")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    counts = [int(word) for word in given.ranges.split(",")]
    print(preamble())
    with (
        checkpoint("tinyllama-1.1b", given.checkpoint) as directory,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch,
        served("web", directory, given.rate) as url,
    ):
        file = weight_files(directory)[0]
        size = file.stat().st_size
        base = [GAUSSMETER, "scan", "-q", "--force", "-w", f"{scratch}/w.duckdb"]
        commands = {"disk": [*base, str(file)]}
        commands |= {str(n): [*base, f"{url}/{file.name}", "--ranges", str(n)] for n in counts}
        walls: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, command in commands.items():
                walls[name].append(measure(command).wall)
        rows = []
        local = median(walls["disk"])
        first = median(walls[str(counts[0])])
        for n in counts:
            wall = median(walls[str(n)])
            whole = first * counts[0] / (wall * n)
            transfer = (first - local) * counts[0] / ((wall - local) * n)
            rows.append([
                str(n), f"{wall:.2f}", f"{size / wall / 1e6:.0f}", f"{first / wall:.2f}", f"{whole:.0%}",
                f"{transfer:.0%}",
            ])  # fmt: skip
        print(f"{size / 1e9:.2f} GB, {given.rate / 1e6:.0f} MB/s a connection, {local:.2f} s from disk\n")
        print(
            table(
                ["ranges", "median s", "MB/s", "times the first", "of linear", "without the disk's time"],
                rows,
            )
        )


if __name__ == "__main__":
    main()
