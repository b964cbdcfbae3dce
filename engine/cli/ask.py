"""The commands that ask the warehouse: ls, show, sql, paper."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.options import Format, parse_parameters
from engine.cli.progress import progress
from engine.cli.render import answer
from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE

if TYPE_CHECKING:
    from engine.warehouse.queries import Query


class By(StrEnum):
    """What a row of `show` stands for."""

    SUBJECT = "subject"
    LAYER = "layer"
    ROLE = "role"
    TENSOR = "tensor"


def ls(
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    output: options.Output = None,
) -> None:
    """List what was scanned."""
    from engine.verbs.look import ls as run

    with progress() as listener:
        result = run(warehouse=warehouse, listener=listener)
    answer(result, form, output)


def show(
    subject: Annotated[str, typer.Argument(help="Its number, name, place, or the beginning of its name.")],
    by: Annotated[By, typer.Option(help="What a row stands for.")] = By.LAYER,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    output: options.Output = None,
) -> None:
    """Look at one subject by layer, role or tensor."""
    from engine.verbs.look import show as run

    with progress() as listener:
        result = run(subject, by=by.value, warehouse=warehouse, listener=listener)
    answer(result, form, output)


def sql(
    query: Annotated[
        str | None,
        typer.Argument(help="SQL, the path of a .sql file, or the name of a query.", show_default=False),
    ] = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    param: options.Parameters = None,
    form: options.As = Format.TABLE,
    output: options.Output = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the named queries with their questions.")
    ] = False,
) -> None:
    """Ask the warehouse anything, read-only."""
    from engine.verbs.query import questions
    from engine.verbs.query import sql as run

    if listing:
        _list("query", questions(), form, output)
        return
    if query is None:
        raise ConfigError("give SQL, a .sql file or a query's name; --list shows the names")
    with progress() as listener:
        result = run(query, warehouse=warehouse, params=parse_parameters(param), listener=listener)
    answer(result, form, output)


def paper(
    table: Annotated[
        str | None,
        typer.Argument(
            help="table1 to table11, scalars, fig1, fig3, fig5, fig6 or fig7; fig2, fig4 and fig8 to fig26 "
            "are fig1 of one model or adapter.",
            show_default=False,
        ),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Only this subject.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns subject and score, for table4, table7 and fig5; else those of runs."
        ),
    ] = None,
    param: options.Parameters = None,
    warehouse: options.Warehouse = Path(WAREHOUSE),
    form: options.As = Format.TABLE,
    output: options.Output = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the tables and figures with their parameters.")
    ] = False,
) -> None:
    """Print the paper's tables and figures over what was scanned."""
    from engine.verbs.paper import paper as run
    from engine.verbs.paper import papers

    if listing:
        _list("table", papers(), form, output)
        return
    if table is None:
        raise typer.BadParameter("which table or figure? --list shows them", param_hint="TABLE")
    params = parse_parameters(param)
    with progress() as listener:
        result = run(
            table, subject=subject, params=params, scores=scores, warehouse=warehouse, listener=listener
        )
    answer(result, form, output)


def _list(what: str, queries: Sequence[Query], form: Format, output: Path | None) -> None:
    from engine.warehouse.result import Result

    rows = [(q.name, q.question, ", ".join(q.defaults)) for q in queries]
    answer(Result([what, "question", "parameters"], rows), form, output)
