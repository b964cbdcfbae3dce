"""Merge: several models into one that is never whole in memory, and say what came out.

    python jobs/merge.py jobs/configs/merge.yaml [local|auto|ADDRESS]

`gaussmeter job` does the same with more comfort; this is the place to begin a merge of your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine import merge, show
from engine.config.jobs import load_job
from engine.config.merge_job import MergeConfig
from engine.errors import ConfigError, GaussmeterError


def main(path: Path, ray: str | None) -> int:
    """Run the merge of a configuration; return the exit code."""
    config = load_job(path)
    if not isinstance(config, MergeConfig):
        raise ConfigError(f"describes a {config.job}, not a merge", file=str(path))
    report = merge(
        path.parent / config.merge if isinstance(config.merge, str) else config.merge,
        config.out,
        adapter=config.adapter,
        base=config.base,
        warehouse=config.warehouse,
        ray=ray or config.run.ray,
        workers=config.run.workers,
        ranges=config.run.ranges,
    )
    print(f"{report.out}: {report.status}, {report.merged} tensors by {report.method}")
    for name, reason in (*report.copied, *report.refused):
        print(f"  {name}: {reason}")
    if report.subject_id is not None:
        for row in show(report.subject_id, by="role", warehouse=config.warehouse).records():
            if row["matrices"]:
                shape = "" if row["kurtosis_3s"] is None else f", kurtosis {row['kurtosis_3s']:.2f}"
                print(f"  {row['role']:<18} sigma {row['std'] or 0:.3e}{shape}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("ray", nargs="?", help="local, auto or the address of a cluster")
    words = parser.parse_args()
    try:
        sys.exit(main(words.config, words.ray))
    except GaussmeterError as error:
        print(f"jobs/merge.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
