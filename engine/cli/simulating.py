"""The command that simulates weights."""

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
from engine.cli.render import answer
from engine.errors import ConfigError
from engine.execution.process import without_scipy
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.simulation import LEVELS

if TYPE_CHECKING:
    from engine.verbs.simulate import SimulationReport


def simulate(
    seed: Annotated[int, typer.Option(min=0, help="Of the generator.")] = 42,
    points: Annotated[int, typer.Option(help="How many weights each level has.")] = 10_000_000,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the optimal weights.")] = 0.1,
    levels: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Standard deviations of the noise, separated by commas.")
    ] = ",".join(map(str, LEVELS)),
    name: Annotated[str | None, typer.Option(help="The subject's name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Simulate again even what is there.")] = False,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    output: options.Output = None,
    quiet: options.Quiet = False,
) -> None:
    """Simulate weights under noise as the paper does, a tensor of one subject for each level.

    Sparse optimal weights, a truncated Gaussian and a few outliers, plus Gaussian noise: as the noise grows,
    a line becomes an inverted T, a sharp peak and then a Gaussian (App. B.2 and C.6, Fig. 7).
    """
    without_scipy()
    from engine.verbs.simulate import simulate as run

    with progress(quiet=quiet) as listener:
        report = run(
            seed=seed,
            points=points,
            sigma=sigma,
            levels=parse_levels(levels),
            name=name,
            force=force,
            warehouse=warehouse,
            listener=listener,
        )
    if form is Format.JSON and output is None:
        say(json.dumps(asdict(report), indent=1) + "\n")
        return
    if form is Format.TABLE and output is None:
        if quiet:
            return
        say(printable(_sentence(report)) + f" in {warehouse}\n\n")
    _print(report, form, output)


def parse_levels(text: str) -> list[float]:
    """Read numbers that commas separate.

    Raises:
        ConfigError: a word that is no number.
    """
    words = [word.strip() for word in text.split(",")]
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ConfigError(f"--levels takes numbers such as 0.01,0.1, not {text!r}") from error


def _sentence(report: SimulationReport) -> str:
    again = "unchanged since it was simulated, " if report.status == "unchanged" else ""
    count = len(report.levels)
    levels = f"{count} level{'s' * (count != 1)} of noise"
    return f"{report.name}: {again}{levels}, {report.points:,} points each, subject {report.subject_id}"


def _print(report: SimulationReport, form: Format, output: Path | None) -> None:
    from engine.warehouse.result import Result

    rows = [asdict(level) for level in report.levels]
    answer(Result(list(rows[0]), [tuple(row.values()) for row in rows]), form, output)
