"""Delta: count what tuning has changed of a base, and say how much.

    python jobs/delta.py jobs/configs/delta.yaml [local|auto|ADDRESS]

`gaussmeter job` does the same with more comfort; this is the place to begin a comparison of your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine import delta, show
from engine.config.delta import DeltaConfig
from engine.config.jobs import load_job
from engine.errors import ConfigError, GaussmeterError


def main(path: Path, ray: str | None) -> int:
    """Run the delta of a configuration; return the exit code."""
    config = load_job(path)
    if not isinstance(config, DeltaConfig):
        raise ConfigError(f"describes a {config.job}, not a delta", file=str(path))
    report = delta(
        config.base,
        *config.tuned,
        adapters=config.adapters,
        warehouse=config.warehouse,
        strict=config.strict,
        exact=config.exact,
        include=config.tensors.include,
        exclude=config.tensors.exclude,
        ray=ray or config.run.ray,
        workers=config.run.workers,
        device=config.run.device,
        ranges=config.run.ranges,
    )
    for subject in report.subjects:
        print(f"{subject.name}: {subject.changed:.2%} of the elements changed")
        for row in show(subject.subject_id, by="role", warehouse=config.warehouse).records():
            if row["matrices"]:
                shape = "" if row["kurtosis_3s"] is None else f", kurtosis {row['kurtosis_3s']:.2f}"
                print(f"  {row['role']:<18} sigma {row['std'] or 0:.3e}{shape}")
        for name, reason in subject.left_out:
            print(f"  {name}: {reason}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("ray", nargs="?", help="local, auto or the address of a cluster")
    words = parser.parse_args()
    try:
        sys.exit(main(words.config, words.ray))
    except GaussmeterError as error:
        print(f"jobs/delta.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
