"""Merge: several models into one that is never whole in memory, and say what came out.

    python jobs/merge.py jobs/configs/merge.yaml [local|auto|ADDRESS]

`gaussmeter job` does the same with more comfort; this is the place to begin a merge of your own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine import merge, show
from engine.config.jobs import load_job
from engine.config.merge_job import MergeConfig
from engine.errors import GaussmeterError


def main(path: Path, ray: str | None) -> int:
    """Run the merge of a configuration; return the exit code."""
    config = load_job(path)
    if not isinstance(config, MergeConfig):
        sys.exit(f"jobs/merge.py: {path}: describes a {config.job}, not a merge")
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
                print(f"  {row['role']:<18} sigma {row['std']:.3e}, kurtosis {row['kurtosis_3s']:.2f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
    except GaussmeterError as error:
        sys.exit(f"jobs/merge.py: {error}")
