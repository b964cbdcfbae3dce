"""The command that runs a configuration, here or on a cluster."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.deltas import print_delta
from engine.cli.failing import ended_by
from engine.cli.listeners import listening
from engine.cli.merging import print_merge
from engine.cli.options import Format
from engine.cli.output import printable, say
from engine.cli.picturing import print_report
from engine.cli.render import nbytes
from engine.cli.tuning import print_tune
from engine.errors import ConfigError
from engine.execution.process import without_scipy

if TYPE_CHECKING:
    from engine.verbs.census import CensusReport
    from engine.verbs.job import AnyReport

_FAILED = 3
_WORDS = ("scanned", "resumed", "added", "unchanged", "planned", "skipped", "refused", "failed")
_MOST_SKIPPED = 20


def job(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="What to do; see jobs/configs.")
    ] = None,
    warehouse: Annotated[
        Path | None, typer.Option("--warehouse", "-w", help="In place of the configuration's.")
    ] = None,
    ray: options.Ray = None,
    workers: options.Workers = None,
    device: options.Instead = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Find and open what would be scanned, and do no more.")
    ] = False,
    submit: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run it on the Ray cluster with this dashboard, such as http://127.0.0.1:8265.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With --submit: follow the job's log to its end.")
    ] = True,
    status: Annotated[
        str | None, typer.Option(metavar="ID", help="With --submit: print the status of a job.")
    ] = None,
    logs: Annotated[
        str | None, typer.Option(metavar="ID", help="With --submit: print the log of a job.")
    ] = None,
    stop: Annotated[str | None, typer.Option(metavar="ID", help="With --submit: stop a job.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Of adaptation runs: go on with those that are there.")
    ] = False,
    events: options.Events = None,
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Do what a configuration says: scan many, count deltas, merge or tune models, write a report.

    A checkpoint that cannot be scanned is reported and does not stop the others; the exit code is then 3.
    Fired twice, the second says so and does nothing.
    """
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"job prints table or json, not {form}")
    asked = [word for word in (status, logs, stop) if word is not None]
    if asked and (submit is None or config is not None or len(asked) > 1):
        raise ConfigError("--status, --logs and --stop go alone with --submit ADDRESS")
    if submit is not None:
        _require_none({
            "--dry-run": dry_run, "--warehouse": warehouse, "--ray": ray, "--workers": workers,
            "--device": device, "--events": events, "--format": form is Format.JSON, "--quiet": quiet,
            "--resume without a configuration": resume and config is None,
        })  # fmt: skip
        _on_cluster(submit, config, wait=wait, resume=resume, status=status, logs=logs, stop=stop)
        return
    if config is None:
        raise ConfigError("which configuration? for example: gaussmeter job jobs/configs/nightly.yaml")
    without_scipy()
    from engine.verbs.job import job as run

    with (
        listening(events, quiet=quiet, log=True) as listener,
        ended_by("interrupted; what was counted is kept, and the same command goes on with it"),
    ):
        report = run(
            config,
            warehouse=warehouse,
            ray=ray,
            workers=workers,
            device=device.value if device else None,
            dry_run=dry_run,
            resume=resume,
            listener=listener,
        )
    if not _print(report, form, quiet=quiet):
        raise typer.Exit(_FAILED)


def _print(report: AnyReport, form: Format, *, quiet: bool) -> bool:
    """Print what any job reports; whether it did all that it should."""
    from engine.verbs.delta import DeltaReport
    from engine.verbs.merge import MergeReport
    from engine.verbs.report import Report
    from engine.verbs.tune import TuneReport

    match report:
        case DeltaReport():
            print_delta(report, form, quiet=quiet)
        case Report():
            print_report(report, form, quiet=quiet)
        case MergeReport():
            print_merge(report, form, quiet=quiet)
        case TuneReport():
            print_tune(report, form, quiet=quiet)
        case _:
            _report(report, form, quiet=quiet)
            return report.complete
    return True


def _report(report: CensusReport, form: Format, *, quiet: bool) -> None:
    counts = {word: report.counts[word] for word in _WORDS if word in report.counts}
    if form is Format.JSON:
        checkpoints = [asdict(e) for e in report.entries]
        summary = {"counts": counts, "nbytes_read": report.nbytes_read, "seconds": report.seconds}
        say(json.dumps({**summary, "checkpoints": checkpoints}, indent=1) + "\n")
        return
    if quiet:
        return
    total = len(report.entries)
    parts = ", ".join(f"{count:,} {word}" for word, count in counts.items()) or "none"
    read = f"; read {nbytes(report.nbytes_read)} in {report.seconds:.2f} s"
    say(f"{total:,} checkpoint{'s' * (total != 1)}: {parts}{read}\n")
    for word in ("skipped", "refused", "failed"):
        entries = [e for e in report.entries if e.status == word]
        shown = entries[:_MOST_SKIPPED] if word == "skipped" else entries
        for entry in shown:
            reason = entry.reason.removeprefix(f"{entry.uri}: ")
            say(printable(f"  {word:<8} {entry.uri}: {reason}") + "\n")
        if len(shown) < len(entries):
            say(f"  {word:<8} and {len(entries) - len(shown):,} more; --format json has all\n")


def _require_none(given: dict[str, object]) -> None:
    """Refuse what would be left out of a job that is sent away."""
    word = next((word for word, value in given.items() if value), None)
    if word is not None:
        raise ConfigError(f"{word} does not go with --submit: the job is as its configuration says")


def _on_cluster(
    address: str,
    config: Path | None,
    *,
    wait: bool,
    resume: bool,
    status: str | None,
    logs: str | None,
    stop: str | None,
) -> None:
    from engine.verbs import submit

    if status is not None:
        say(f"{submit.status(address, status)}\n")
    elif logs is not None:
        say(submit.logs(address, logs))
    elif stop is not None:
        say(f"{stop}: {submit.stop(address, stop)}\n")
    elif config is None:
        for line in submit.jobs(address):
            say(printable(line) + "\n")
    else:
        number, new = submit.submit(config, address, resume=resume)
        sys.stderr.write(f"{number}: {'submitted' if new else 'is running already'}\n")
        if wait:
            for text in submit.follow(address, number):
                say(text)
            final = submit.status(address, number)
            sys.stderr.write(f"{number}: {final}\n")
            if final != "SUCCEEDED":
                raise typer.Exit(_FAILED)
