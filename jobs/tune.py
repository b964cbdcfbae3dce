"""Tune: adapt a model by every method of a configuration, and say what each run reached and changed.

    python jobs/tune.py jobs/configs/tune.yaml [local|auto|ADDRESS] [--resume]

`gaussmeter tune` does the same with more comfort; this is the place to begin a sweep of your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine import sql, tune
from engine.errors import GaussmeterError
from engine.nouns.events import Event, RunBegun, RunEnded

SIGMAS = """
SELECT r.name, avg(d.std) AS sigma, avg(d.kurtosis_3s) AS kurtosis
FROM runs r
JOIN delta_stats d USING (subject_id)
WHERE r.sweep = $sweep AND d.is_matrix AND d.role NOT IN ('embedding', 'position embedding', 'type embedding')
GROUP BY r.name
"""


def tell(event: Event) -> None:
    """Say what is worth a line in a log."""
    if isinstance(event, (RunBegun, RunEnded)):
        print(event, flush=True)


def main(path: Path, ray: str | None, *, resume: bool) -> int:
    """Run the sweep of a configuration, or go on with it; return the exit code."""
    from engine.verbs.tune import load_tune

    config = load_tune(path)
    report = tune(config, ray=ray, resume=resume, listener=tell)
    found = sql(SIGMAS, params={"sweep": config.name}, warehouse=config.warehouse).records()
    changed = {row["name"]: row for row in found}
    for run in report.runs:
        score = "no score" if run.score is None else f"{run.score:.2f}"
        row = changed.get(run.name)
        dw = f", dW: sigma {row['sigma']:.2e}, kurtosis {row['kurtosis'] or 0:.2f}" if row else ""
        print(f"{run.status:<9} {run.name}: {score}{dw}{run.reason and f' ({run.reason})'}")
    return 0 if report.complete else 3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("ray", nargs="?", help="local, auto or the address of a cluster")
    parser.add_argument("--resume", action="store_true", help="go on with runs that are there")
    words = parser.parse_args()
    try:
        sys.exit(main(words.config, words.ray, resume=words.resume))
    except GaussmeterError as error:
        print(f"jobs/tune.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
