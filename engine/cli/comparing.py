"""The commands that set subjects side by side: compare, nearest."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import options
from engine.cli.options import Format
from engine.cli.output import printable, say
from engine.cli.progress import progress
from engine.cli.render import answer
from engine.nouns.defaults import WAREHOUSE

_WHICH = "Its number, name, place, or the beginning of its name."


class By(StrEnum):
    """What a row of `compare` stands for."""

    TENSOR = "tensor"
    LAYER = "layer"
    ROLE = "role"
    SUBJECT = "subject"


def compare(
    a: Annotated[str, typer.Argument(help=_WHICH)],
    b: Annotated[str, typer.Argument(help="Another.")],
    by: Annotated[By, typer.Option(help="What a row stands for.")] = By.TENSOR,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    output: options.Output = None,
) -> None:
    """Set two subjects side by side: sigmas, Wasserstein-1, Kolmogorov-Smirnov.

    Nothing is read but the counts. A tensor is identical when its counts are; the verdict is the first line
    of the table, and not in the other formats.
    """
    from engine.verbs.compare import compare as run

    with progress() as listener:
        found = run(a, b, by=by.value, warehouse=warehouse, listener=listener)
    if form is Format.TABLE and output is None:
        say(printable(f"a = {found.a}, b = {found.b}: {found.verdict}") + "\n\n")
    answer(found.result, form, output)


def nearest(
    subject: Annotated[str, typer.Argument(help=_WHICH)],
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Only checkpoint, delta, adapter, merge, edit, simulation or observation; all for "
            "everything. By default deltas and adapters are compared with each other, and everything else "
            "likewise.",
        ),
    ] = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    output: options.Output = None,
) -> None:
    """Find the subjects with the nearest sigma profile: which base was this tuned from?

    The distance is the root mean square of ln(sigma_1 / sigma_2) over the matrices that both have.
    """
    from engine.verbs.nearest import nearest as run

    with progress() as listener:
        result = run(subject, limit=limit, kind=kind, warehouse=warehouse, listener=listener)
    answer(result, form, output)
