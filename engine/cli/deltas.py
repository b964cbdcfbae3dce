"""The command that counts differences."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.failing import ended_by
from engine.cli.listeners import listening
from engine.cli.options import Device, Format, parse_size
from engine.cli.output import printable, say
from engine.cli.render import nbytes
from engine.cli.startup import reading_ahead
from engine.errors import ConfigError
from engine.execution.process import without_scipy
from engine.nouns.defaults import RANGES, WAREHOUSE

if TYPE_CHECKING:
    from engine.verbs.delta import DeltaReport, Derived

_MOST_REASONS = 10
_Patterns = list[str] | None


def delta(
    uris: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BASE TUNED...]", help="The base, and checkpoints that were tuned from it."),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="An adapter in PEFT's format; repeatable.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="With --adapter: the model that it changes; DoRA needs it.")
    ] = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    name: Annotated[str | None, typer.Option(help="The subject's name, of a single difference.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse if anything cannot be compared, instead of listing it.")
    ] = False,
    workers: options.Workers = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read everything twice: filters and quantiles become exact too.")
    ] = False,
    include: Annotated[_Patterns, typer.Option(help="Only tensors whose name matches this pattern.")] = None,
    exclude: Annotated[_Patterns, typer.Option(help="No tensors whose name matches this pattern.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Count again even what has not changed.")] = False,
    task_size: Annotated[
        str | None, typer.Option(help="About how much a task reads, up to 256MiB by default.", metavar="SIZE")
    ] = None,
    memory: options.Memory = None,
    ranges: options.Ranges = RANGES,
    device: options.On = Device.AUTO,
    ray: options.Ray = None,
    per_gpu: options.PerGpu = 1,
    task_seconds: options.TaskSeconds = None,
    events: options.Events = None,
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Count what tuning has changed: tuned - base, value by value, as a subject like any other.

    All checkpoints are read side by side, the base once however many were tuned from it. Or --adapter: what
    an adapter adds to its base, formed by blocks of rows.
    """
    without_scipy()
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"delta prints table or json, not {form}")
    _check(uris, adapter, base)
    common: dict[str, Any] = {
        "warehouse": warehouse,
        "name": name,
        "strict": strict,
        "exact": exact,
        "include": include or (),
        "exclude": exclude or (),
        "force": force,
        "task_bytes": parse_size(task_size, "--task-size"),
        "memory_bytes": parse_size(memory, "--memory"),
        "ranges": ranges,
    }
    from engine.execution.choose import choose_executor
    from engine.verbs.delta import delta as run

    with ExitStack() as stack:
        stack.enter_context(reading_ahead([*(uris or ()), *([base] if base else ())]))
        listener = stack.enter_context(listening(events, quiet=quiet))
        runs = partial(choose_executor, ray, workers, per_gpu=per_gpu, task_seconds=task_seconds)
        executor = stack.enter_context(runs(device=device.value, listener=listener))
        first, tuned = (uris[0], uris[1:]) if uris else (base, [])
        with ended_by("interrupted; what was counted is kept, and the same command goes on with it"):
            report = run(
                first, *tuned, adapters=adapter or (), executor=executor, listener=listener, **common
            )
    print_delta(report, form, quiet=quiet, warehouse=warehouse)


def _check(uris: list[str] | None, adapter: list[str] | None, base: str | None) -> None:
    if adapter and uris:
        raise ConfigError("give checkpoints or adapters: an adapter's base is named by --base")
    if not adapter and base is not None:
        raise ConfigError("--base goes with --adapter; otherwise the base is the first of the checkpoints")
    if not adapter and len(uris or ()) < 2:
        raise ConfigError("a delta needs a base and at least one tuned checkpoint, or --adapter DIR")


def print_delta(report: DeltaReport, form: Format, *, quiet: bool, warehouse: Path | None = None) -> None:
    """Print what a delta did."""
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
    elif not quiet:
        _print(report, f" in {warehouse}" if warehouse else "")


def _print(report: DeltaReport, where: str) -> None:
    for subject in report.subjects:
        say(_sentence(subject, where) + "\n")
        for name, reason in subject.left_out[:_MOST_REASONS]:
            say(printable(f"  not compared: {name}: {reason}") + "\n")
        more = len(subject.left_out) - _MOST_REASONS
        if more > 0:
            say(f"  not compared: and {more:,} more; `gaussmeter sql not_counted` has all\n")
    say(f"read {nbytes(report.nbytes_read)} in {report.seconds:.2f} s\n")


def _sentence(subject: Derived, where: str) -> str:
    left_out = f" ({len(subject.left_out):,} not compared)" if subject.left_out else ""
    again = {"unchanged": "unchanged since it was counted, ", "resumed": "completed, "}.get(
        subject.status, ""
    )
    found = f"{subject.changed:.2%} of the elements changed"
    if subject.frozen:
        found += f", {subject.frozen:,} tensor{'s' * (subject.frozen != 1)} not at all"
    found += f", subject {subject.subject_id}{where}"
    return printable(f"{subject.name}: {again}{subject.tensors:,} tensors{left_out}, {found}")
