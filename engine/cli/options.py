"""Options that several commands share, and how their words become values."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError
from engine.nouns import sizes


class Device(StrEnum):
    """Where workers count."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


Warehouse = Annotated[
    Path, typer.Option("--warehouse", "-w", envvar="GAUSSMETER_WAREHOUSE", help="The DuckDB file.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")
]
As = Annotated[Format, typer.Option("--format", "-f", help="How to print the answer.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=1,
        help="Threads, or Ray's actors; one per core, or per GPU on Ray.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="local|auto|ADDRESS",
        help="Run on Ray: on a private cluster, on the one that this machine belongs to, or on another.",
    ),
]
On = Annotated[
    Device,
    typer.Option("--device", help="Where each worker counts; auto takes a GPU that it sees, from 16 GB on."),
]
Instead = Annotated[
    Device | None,
    typer.Option("--device", help="Where each worker counts or trains; in place of the configuration's."),
]
PerGpu = Annotated[int, typer.Option(min=1, help="Actors on each GPU of a Ray cluster.")]
TaskSeconds = Annotated[
    float | None,
    typer.Option(help="Seconds that one attempt at a task may take on Ray; learnt by default."),
]
Events = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Add a line of JSON to this file for each event; - for stderr."),
]
Ranges = Annotated[
    int,
    typer.Option(min=1, max=256, help="Requests at once for a checkpoint behind a network."),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Refuse to start if it could take more than this."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no report.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the query; repeatable."),
]


def parse_size(text: str | None, option: str) -> int | None:
    """Read a size such as 500MB, 256MiB or 1048576, in bytes.

    Raises:
        ConfigError: it is no size.
    """
    if text is None:
        return None
    try:
        return sizes.parse_size(text)
    except (ValueError, OverflowError) as error:  # the latter of hundreds of digits
        raise ConfigError(f"{option} takes a size such as 500MB or 256MiB, not {text!r}") from error


def parse_parameters(words: list[str] | None) -> dict[str, str | int | float | None]:
    """Read NAME=VALUE words; whether a value is a number, the query tells.

    Raises:
        ConfigError: a word without an equals sign.
    """
    from engine.warehouse.queries import typed

    pairs = [word.partition("=") for word in words or []]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ConfigError(f"--param takes NAME=VALUE, not {name + equals!r}")
    return {name: typed(value) for name, _, value in pairs}
