"""Census: count what is new or has changed of many checkpoints, and say what became of each.

    python jobs/scan.py jobs/configs/nightly.yaml [local|auto|ADDRESS]

`gaussmeter job` does the same with more comfort; this is the place to begin a census of your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine import census
from engine.config.census import load_census
from engine.errors import GaussmeterError
from engine.formats.find import find_checkpoints
from engine.nouns.events import Event, Judged, TaskRetried, WorkerLost
from engine.plan import Selection


def tell(event: Event) -> None:
    """Say what is worth a line in a log."""
    if isinstance(event, (Judged, WorkerLost, TaskRetried)):
        print(event, flush=True)


def main(path: Path, ray: str | None) -> int:
    """Run the census of a configuration; return the exit code."""
    config = load_census(path)
    checkpoints = (c for source in config.checkpoints for c in find_checkpoints(source, path.parent))
    report = census(
        checkpoints,
        warehouse=config.warehouse,
        include=config.include,
        exclude=config.exclude,
        selection=Selection(config.tensors.include, config.tensors.exclude),
        exact=config.exact,
        ray=ray or config.run.ray,
        workers=config.run.workers,
        device=config.run.device,
        ranges=config.run.ranges,
        listener=tell,
    )
    print(", ".join(f"{count} {status}" for status, count in report.counts.items()))
    for entry in report.entries:
        if entry.status in ("refused", "failed"):
            print(f"{entry.uri}: {entry.reason}")
    return 0 if report.complete else 3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("ray", nargs="?", help="local, auto or the address of a cluster")
    words = parser.parse_args()
    try:
        sys.exit(main(words.config, words.ray))
    except GaussmeterError as error:
        print(f"jobs/scan.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
