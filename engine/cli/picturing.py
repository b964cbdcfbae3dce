"""The commands that draw: plot and report."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.options import Format
from engine.cli.output import printable, say
from engine.cli.progress import progress
from engine.cli.render import nbytes
from engine.errors import ConfigError
from engine.execution.process import without_scipy
from engine.nouns.defaults import WAREHOUSE

if TYPE_CHECKING:
    from engine.verbs.report import Report


class Picture(StrEnum):
    """What can be drawn."""

    HISTOGRAMS = "histograms"
    OVERLAY = "overlay"
    SIGMA = "sigma"
    KURTOSIS = "kurtosis"
    RATIO = "ratio"
    IID = "iid"
    SCORES = "scores"
    SIMULATION = "simulation"
    LEARNING = "learning"


_Patterns = list[str] | None


def plot(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SUBJECT...]", help="Numbers, names, places, or beginnings of names."),
    ] = None,
    picture: Annotated[
        Picture | None,
        typer.Option(
            "--picture",
            "-p",
            help="What to draw; histograms of one subject, an overlay of two, sigma of more by default.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file that ends in .png, .svg or .html; a PNG here by default."
        ),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Histograms on a logarithmic axis.")] = False,
    bins: Annotated[
        int | None, typer.Option(help="Bins of each histogram; 81, or 49 where there are many.")
    ] = None,
    include: Annotated[_Patterns, typer.Option(help="Only histograms of tensors that match this.")] = None,
    exclude: Annotated[_Patterns, typer.Option(help="No histograms of tensors that match this.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns subject and score, for scores; else those of runs."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Pixels of a PNG for each point; 2, or less for large pictures.")
    ] = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Draw what was counted: a picture from the counts, in any binning; no weight is read.

    histograms: by layer and module, with the fitted normal (Figs. 1, 8 to 26). overlay: two subjects.
    sigma: by depth (Fig. 6). kurtosis, ratio: by layer and role. iid: how much the
    sigmas of rows and columns differ. scores: against sigma (Fig. 5).
    simulation: Fig. 7. learning: curves of runs.
    """
    _table_or_json("plot", form)
    without_scipy()
    from engine.verbs.plot import plot as run

    with progress() as listener:
        report = run(
            *(subjects or ()),
            picture=picture.value if picture else None,
            output=output,
            log=log,
            bins=bins,
            include=include or (),
            exclude=exclude or (),
            scores=scores,
            scale=scale,
            warehouse=warehouse,
            listener=listener,
        )
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
    elif not quiet:
        say(printable(f"{report.path}: {report.title}, {nbytes(report.nbytes)}") + "\n")


def report(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="SUBJECT...", help="Numbers, names, places, or beginnings of names."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Write a page about subjects: one HTML file that works offline, from the warehouse alone.

    Table 1, damage, what was learnt, heat maps, sigma by depth, histograms, departures from a Gaussian and
    from i.i.d., provenance, and all tensors in tables that sort themselves.
    """
    _table_or_json("report", form)
    without_scipy()
    from engine.verbs.report import report as run

    with progress() as listener:
        written = run(*subjects, output=output, warehouse=warehouse, listener=listener)
    print_report(written, form, quiet=quiet)


def print_report(written: Report, form: Format, *, quiet: bool) -> None:
    """Print where a report was written."""
    if form is Format.JSON:
        say(json.dumps(asdict(written), indent=1) + "\n")
    elif not quiet:
        what = f"{len(written.subjects)} subject{'s' * (len(written.subjects) != 1)}"
        say(
            printable(f"{written.path}: {what}, {written.pictures} pictures, {nbytes(written.nbytes)}") + "\n"
        )


def _table_or_json(command: str, form: Format) -> None:
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"{command} prints table or json, not {form}")
