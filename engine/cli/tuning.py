"""The command that tunes models."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.failing import ended_by
from engine.cli.listeners import listening
from engine.cli.options import Format
from engine.cli.output import printable, say
from engine.cli.run_progress import run_progress
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.verbs.tune import TuneReport

_FAILED = 3


def tune(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Methods, tasks, seeds and ranks; see jobs/configs.")
    ],
    warehouse: Annotated[
        Path | None, typer.Option("--warehouse", "-w", help="In place of the configuration's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep of this name that is there already.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the runs, and do no more.")] = False,
    ray: options.Ray = None,
    device: options.Instead = None,
    events: options.Events = None,
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Adapt a model: every method on every task with every seed and rank, driven by Ray Train.

    Scores by update and the learnt scalars go to the warehouse, and what each run has changed is counted like
    weights. A run whose worker is lost goes on from its last checkpoint; an interrupted sweep with --resume.
    """
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"tune prints table or json, not {form}")
    from engine.verbs.tune import tune as run

    with (
        listening(events, quiet=quiet, log=True, draw=run_progress) as listener,
        ended_by("interrupted; --resume goes on from the last checkpoints"),
    ):
        report = run(
            config,
            warehouse=warehouse,
            ray=ray,
            device=device.value if device else None,
            resume=resume,
            dry_run=dry_run,
            listener=listener,
        )
    print_tune(report, form, quiet=quiet)


def print_tune(report: TuneReport, form: Format, *, quiet: bool) -> None:
    """Print what a sweep did, and end with 3 if a run failed."""
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
    elif not quiet:
        width = max((len(run.name) for run in report.runs), default=0)
        for run in report.runs:
            score = f"{run.score:7.2f}" if run.score is not None else "       "
            took = f"{run.steps:,} updates in {run.seconds:.1f} s" if run.seconds else ""
            text = f"{run.status:<9} {run.name:<{width}} {score}  {took}  {run.reason}"
            say(printable(text.rstrip()) + "\n")
        say(f"{len(report.runs):,} run{'s' * (len(report.runs) != 1)} in {report.seconds:.1f} s\n")
    if not report.complete:
        raise typer.Exit(_FAILED)
