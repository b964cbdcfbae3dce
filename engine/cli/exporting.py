"""The commands that let results leave a warehouse, and come into another."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.failing import ended_by
from engine.cli.options import Format
from engine.cli.output import complain, printable, say
from engine.cli.progress import progress
from engine.cli.render import nbytes
from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE

if TYPE_CHECKING:
    from engine.verbs.export import Exported
    from engine.verbs.import_runs import Imported

_FAILED = 3
_WORDS = ("exported", "imported", "added", "unchanged", "skipped", "refused")


def export(
    out: Annotated[str, typer.Option("--out", "-o", metavar="OUT", help="A directory, or s3://...")],
    subjects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SUBJECT]...", help="A number, a name, a place, or the beginning of a name."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every complete subject.")] = False,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Write subjects as Parquet files, a folder each.

    Runs of adaptation come with what they learnt; --all takes all of them, and what a census refused. What is
    there already and has not changed is not written again.
    """
    from engine.verbs.export import export as run

    _check(form, "export")
    if everything == bool(subjects):
        raise ConfigError("which subjects? name them, or give --all")
    with (
        progress(quiet=quiet) as listener,
        ended_by("interrupted; what was exported is kept, and the same command goes on with it"),
    ):
        report = run(None if everything else subjects, out, warehouse=warehouse, listener=listener)
    if form is Format.JSON:
        say(json.dumps({**asdict(report), "nbytes_written": report.nbytes_written}, indent=1) + "\n")
        return
    if quiet:
        return
    for entry in (*report.subjects, *report.runs):
        if entry.status == "skipped":
            say(printable(f"not exported: {entry.subject}: {entry.reason}") + "\n")
    counts = [_counts(report.subjects), *([_counts(report.runs, "run")] if report.runs else [])]
    if report.refusals is not None:
        counts.append(f"refusals {report.refusals.status}")
    wrote = f"{nbytes(report.nbytes_written)} in {report.seconds:.2f} s"
    say(f"{printable(report.out)}: {'; '.join(counts)}; wrote {wrote}\n")


def import_(
    uri: Annotated[str, typer.Argument(metavar="DIR", help="What export has written to, or s3://...")],
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Take the subjects, runs and refusals of an export into this warehouse.

    A subject that cannot be taken in is reported and does not stop the others; the exit code is then 3.
    """
    from engine.verbs.import_ import import_ as run

    _check(form, "import")
    with (
        progress(quiet=quiet) as listener,
        ended_by("interrupted; what was imported is kept, and the same command goes on with it"),
    ):
        report = run(uri, warehouse=warehouse, listener=listener)
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
    elif not quiet:
        for entry in (*report.subjects, *report.runs):
            if entry.status == "imported" and entry.reason:
                say(printable(f"imported {entry.subject} {entry.reason}") + "\n")
            if entry.status == "added":
                say(printable(f"added to {entry.subject}: what --iid found of its rows and columns") + "\n")
        where = f"in {report.seconds:.2f} s, into {printable(str(warehouse))}"
        counts = [_counts(report.subjects), *([_counts(report.runs, "run")] if report.runs else [])]
        if report.refusals:
            counts.append(f"{report.refusals:,} refusal{'s' * (report.refusals != 1)}")
        say(f"{printable(report.uri)}: {'; '.join(counts)} {where}\n")
    reasons = [entry.reason for entry in (*report.subjects, *report.runs) if entry.status == "refused"]
    for reason in (*reasons, *filter(None, [report.reason])):
        complain(reason)
    if not report.complete:
        raise typer.Exit(_FAILED)


def _check(form: Format, command: str) -> None:
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"{command} prints table or json, not {form}")


def _counts(entries: tuple[Exported, ...] | tuple[Imported, ...], what: str = "subject") -> str:
    counts = Counter(entry.status for entry in entries)
    total = len(entries)
    parts = ", ".join(f"{counts[word]:,} {word}" for word in _WORDS if counts[word]) or "none exported"
    return f"{total:,} {what}{'s' * (total != 1)}, {parts}"
