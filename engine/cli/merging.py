"""The command that merges models."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
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
    from engine.verbs.merge import MergeReport

_MOST_REASONS = 10


def merge(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG.yaml] OUT", help="What to merge, as mergekit's YAML; a directory, new or empty."
        ),
    ],
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="Fold this adapter into its base; no CONFIG.yaml then.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="With --adapter: the model that it changes, if not the one it names.")
    ] = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    name: Annotated[str | None, typer.Option(help="The subject's name, the directory's by default.")] = None,
    shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="How much of the weights a file holds at most.")
    ] = "5GB",
    workers: options.Workers = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an earlier merge in the directory, be it finished or not."),
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
    """Merge models into one, block by block, whatever their size; the result is counted as it is written.

    A merge that was interrupted goes on where it stopped.
    """
    without_scipy()
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"merge prints table or json, not {form}")
    config, out = _places(words, adapter, base)
    from engine.execution.choose import choose_executor
    from engine.verbs.merge import merge as run

    with ExitStack() as stack:
        listener = stack.enter_context(listening(events, quiet=quiet))
        runs = partial(choose_executor, ray, workers, per_gpu=per_gpu, task_seconds=task_seconds)
        executor = stack.enter_context(runs(listener=listener))
        with ended_by("interrupted; what was merged is kept, and the same command goes on with it"):
            report = run(
                config,
                out,
                adapter=adapter,
                base=base,
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
    print_merge(report, form, quiet=quiet, warehouse=warehouse)


def _places(words: list[str], adapter: str | None, base: str | None) -> tuple[str | None, str]:
    """The configuration, None with an adapter, and where to write."""
    if adapter is None and base is not None:
        raise ConfigError("--base goes with --adapter; a configuration names its base itself")
    if adapter is None and len(words) != 2:
        raise ConfigError(
            f"a merge takes CONFIG.yaml and OUT, or --adapter DIR and OUT, not {len(words)} words"
        )
    if adapter is not None and len(words) != 1:
        raise ConfigError("with --adapter there is one word more, the directory to write into")
    return (None, words[0]) if adapter is not None else (words[0], words[1])


def print_merge(report: MergeReport, form: Format, *, quiet: bool, warehouse: Path | None = None) -> None:
    """Print what a merge did."""
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
    elif not quiet:
        _print(report, f" in {warehouse}" if warehouse else "")


def _print(report: MergeReport, where: str) -> None:
    for note in report.notes:
        say(printable(f"note: {note}") + "\n")
    for what, rows in (("copied", report.copied), ("left out", report.refused)):
        for name, reason in rows[:_MOST_REASONS]:
            say(printable(f"  {what}: {name}: {reason}") + "\n")
        if len(rows) > _MOST_REASONS:
            say(f"  {what}: and {len(rows) - _MOST_REASONS:,} more\n")
    ends = (
        f"{report.merged:,} tensors merged, {len(report.copied):,} copied, {len(report.refused):,} left out"
    )
    subject = f", subject {report.subject_id}{where}" if report.subject_id is not None else ""
    if report.status == "unchanged":
        say(printable(f"{report.out}: unchanged, {ends}{subject}") + "\n")
        return
    again = "completed an interrupted merge, " if report.status == "resumed" else ""
    files = f"{report.files:,} file{'s' * (report.files != 1)}"
    say(printable(f"{report.out}: {again}{ends}{subject}") + "\n")
    say(
        f"wrote {nbytes(report.nbytes)} in {files}, read {nbytes(report.nbytes_read)}, "
        f"in {report.seconds:.2f} s\n"
    )
