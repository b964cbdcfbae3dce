"""The command that edits models."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.failing import ended_by
from engine.cli.listeners import listening
from engine.cli.options import Format, parse_size
from engine.cli.output import printable, say
from engine.cli.render import nbytes
from engine.errors import ConfigError
from engine.execution.process import without_scipy
from engine.nouns.defaults import RANGES, WAREHOUSE

if TYPE_CHECKING:
    from engine.verbs.edit import EditReport

_MOST_REASONS = 10
_Patterns = list[str] | None


class Keep(StrEnum):
    """Which side of the interval is kept."""

    OUTLIERS = "outliers"
    GAUSSIAN = "gaussian"


def edit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint, of any store and format.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A directory, new or empty.")],
    keep: Annotated[
        Keep | None, typer.Option(help="Keep what lies beyond t sigma of the mean, or what lies within.")
    ] = None,
    t: Annotated[float | None, typer.Option("-t", help="How many sigma, with --keep; 3 by default.")] = None,
    floor: Annotated[
        float | None, typer.Option(metavar="X", help="Keep magnitudes of at least this, such as 1e-3.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Edit the difference from this model, and keep its weights otherwise.")
    ] = None,
    include: Annotated[
        _Patterns, typer.Option(help="Edit tensors whose name matches this pattern; all matrices by default.")
    ] = None,
    exclude: Annotated[_Patterns, typer.Option(help="Copy tensors whose name matches this pattern.")] = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    name: Annotated[str | None, typer.Option(help="The subject's name, the directory's by default.")] = None,
    shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="How much of the weights a file holds at most.")
    ] = "5GB",
    workers: options.Workers = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier edit in the directory, be it finished or not.")
    ] = False,
    task_size: Annotated[
        str | None, typer.Option(help="About how much a task reads, up to 256MiB by default.", metavar="SIZE")
    ] = None,
    memory: options.Memory = None,
    ranges: options.Ranges = RANGES,
    ray: options.Ray = None,
    per_gpu: options.PerGpu = 1,
    task_seconds: options.TaskSeconds = None,
    events: options.Events = None,
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Write a model of which only outliers, the Gaussian part or what is not small is kept; the rest is 0.

    An edit that was interrupted goes on where it stopped.
    """
    without_scipy()
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"edit prints table or json, not {form}")
    from engine.execution.choose import choose_executor
    from engine.verbs.edit import change_of
    from engine.verbs.edit import edit as run

    kept = keep.value if keep else None
    change_of(kept, t, floor)  # refuses before anything starts
    with ExitStack() as stack:
        listener = stack.enter_context(listening(events, quiet=quiet))
        runs = partial(choose_executor, ray, workers, per_gpu=per_gpu, task_seconds=task_seconds)
        executor = stack.enter_context(runs(listener=listener))
        with ended_by("interrupted; what was edited is kept, and the same command goes on with it"):
            report = run(
                model,
                out,
                keep=kept,
                t=t,
                floor=floor,
                base=base,
                include=include or (),
                exclude=exclude or (),
                warehouse=warehouse,
                name=name,
                shard_bytes=parse_size(shard_size, "--shard-size") or 0,
                executor=executor,
                force=force,
                task_bytes=parse_size(task_size, "--task-size"),
                memory_bytes=parse_size(memory, "--memory"),
                ranges=ranges,
                listener=listener,
            )
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
    elif not quiet:
        _print(report, warehouse, "set to the base's" if base else "zeroed")


def _print(report: EditReport, warehouse: Path, otherwise: str) -> None:
    for what, rows in (("copied", report.passed_over), ("left out", report.refused)):
        for name, reason in rows[:_MOST_REASONS]:
            say(printable(f"  {what}: {name}: {reason}") + "\n")
        if len(rows) > _MOST_REASONS:
            say(f"  {what}: and {len(rows) - _MOST_REASONS:,} more\n")
    again = {"unchanged": "unchanged, ", "resumed": "completed an interrupted edit, "}.get(report.status, "")
    share = report.kept / max(report.kept + report.zeroed, 1)
    ends = f"{report.edited:,} tensors edited, {report.copied:,} copied: {report.change}"
    say(printable(f"{report.out}: {again}{ends}") + "\n")
    subject = f", subject {report.subject_id} in {warehouse}" if report.subject_id is not None else ""
    say(f"{report.kept:,} elements kept ({share:.4%}), {report.zeroed:,} {otherwise}{printable(subject)}\n")
    if report.status != "unchanged":
        files = f"{report.files:,} file{'s' * (report.files != 1)}"
        say(
            f"wrote {nbytes(report.nbytes)} in {files}, read {nbytes(report.nbytes_read)}, "
            f"in {report.seconds:.2f} s\n"
        )
