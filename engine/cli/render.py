"""Answers as tables for people; other formats come from the answer itself."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.options import Format
from engine.cli.output import printable, say
from engine.errors import ConfigError, TaskError
from engine.nouns.cells import cell, nbytes

if TYPE_CHECKING:
    from engine.warehouse.result import Result

__all__ = ["answer", "cell", "nbytes", "plain_table", "print_table"]

_WIDE = 10_000  # columns; a pipe has no width of its own


def answer(result: Result, form: Format, output: Path | None = None, title: str | None = None) -> None:
    """Print an answer, or write it to a file.

    Raises:
        ConfigError: Parquet for a terminal.
        TaskError: the file cannot be written.
    """
    if form is Format.PARQUET and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is not for reading: add --output FILE, or send it into a pipe")
    if form is Format.TABLE and output is None:
        print_table(result, title)
        return
    data = _encoded(result, form)
    if output is None:
        say(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise TaskError(f"cannot be written: {error.strerror}", file=str(output)) from error


def _encoded(result: Result, form: Format) -> bytes:
    match form:
        case Format.CSV:
            return result.to_csv().encode()
        case Format.JSON:
            return (result.to_json() + "\n").encode()
        case Format.PARQUET:
            return result.to_parquet()
        case _:
            return plain_table(result).encode()


def _columns(result: Result) -> list[int]:
    """Leave out columns that say nothing: all empty."""
    filled = [i for i in range(len(result.columns)) if any(r[i] not in (None, "") for r in result.rows)]
    return filled or list(range(len(result.columns)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def plain_table(result: Result) -> str:
    """Aligned text without frame or colour, one line a row, for pipes and files."""
    shown = _columns(result)
    header = [printable(result.columns[i]) for i in shown]
    body = [[cell(row[i], result.columns[i]) for i in shown] for row in result.rows]
    right = [any(_is_number(row[i]) for row in result.rows) for i in shown]
    widths = [max(len(line[k]) for line in [header, *body]) for k in range(len(shown))]

    def line(words: list[str]) -> str:
        aligned = (w.rjust(n) if r else w.ljust(n) for w, n, r in zip(words, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), *map(line, body)]) + "\n"


def print_table(result: Result, title: str | None = None) -> None:
    """Print a table: framed on a terminal, plain in a pipe."""
    if not sys.stdout.isatty():
        say(plain_table(result))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    shown = _columns(result)
    for i in shown:
        numeric = any(_is_number(row[i]) for row in result.rows)
        table.add_column(
            Text(printable(result.columns[i])), justify="right" if numeric else "left", no_wrap=numeric
        )
    for row in result.rows:
        table.add_row(*(Text(cell(row[i], result.columns[i])) for i in shown))
    console = Console()
    natural = console.measure(table, options=console.options.update(max_width=_WIDE)).maximum
    if natural > console.width:
        say(plain_table(result))
    else:
        console.print(table)
