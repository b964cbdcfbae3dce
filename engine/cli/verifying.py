"""The command that looks whether a merged model is what it says it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.options import Format
from engine.cli.output import printable, say
from engine.cli.progress import progress
from engine.cli.render import nbytes, print_table
from engine.errors import ConfigError
from engine.execution.process import without_scipy

if TYPE_CHECKING:
    from engine.verbs.verify import VerifyReport


def verify(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The directory of a merged model.")],
    config: Annotated[
        Path | None, typer.Option(help="What it was merged by; what its record says by default.")
    ] = None,
    blocks: Annotated[
        int, typer.Option(min=0, help="How many blocks of 262,144 elements to merge again.")
    ] = 64,
    everything: Annotated[bool, typer.Option("--all", help="Merge everything again.")] = False,
    seed: Annotated[int, typer.Option(help="Another one chooses other blocks.")] = 0,
    workers: options.Workers = None,
    form: options.As = Format.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No output, only the exit code.")] = False,
) -> None:
    """Look whether a merged model is sound, and what its inputs give: exit 1 when something is off.

    Headers, index and sizes are compared, every value is read for NaN and infinities, and a sample of blocks
    is merged again from the inputs.
    """
    without_scipy()
    from engine.verbs.verify import verify as run

    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"verify prints table or json, not {form}")
    with progress(quiet=quiet) as listener:
        report = run(
            out,
            config=config,
            blocks=None if everything else blocks,
            seed=seed,
            workers=workers,
            listener=listener,
        )
    if form is Format.JSON and not quiet:
        say(json.dumps({"ok": not report.findings, **asdict(report)}, indent=1) + "\n")
    elif not quiet:
        _print(report)
    if report.findings:
        raise typer.Exit(1)


def _print(report: VerifyReport) -> None:
    from engine.warehouse.result import Result

    if report.findings:
        rows = [(f.where, f.problem, f.detail) for f in report.findings]
        print_table(Result(["where", "problem", "detail"], rows))
    found = report.recomputed
    if found is not None:
        same = f"{found.equal:,} of {found.elements:,} elements equal to the bit"
        more = f", {found.rounded:,} rounded otherwise" if found.rounded else ""
        wrong = f", {found.wrong_count:,} wrong" if found.wrong_count else ""
        blocks = f"{report.blocks:,} block{'s' * (report.blocks != 1)}"
        error = f"rounding error at most {found.error:.3f} of the last place"
        say(f"merged again: {blocks}, {same}{more}{wrong}; {error}\n")
    if report.note:
        say(printable(report.note) + "\n")
    count = len(report.findings)
    ends = f"{count:,} finding{'s' * (count != 1)}" if count else "nothing wrong"
    say(printable(f"{report.out}: {report.tensors:,} tensors, {nbytes(report.nbytes)}, {ends}") + "\n")
