"""The application: its commands, and how failures become one sentence and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from engine.cli import (
    ask,
    comparing,
    deltas,
    editing,
    exporting,
    jobs,
    merging,
    packing,
    picturing,
    scanning,
    simulating,
    tuning,
    verifying,
)
from engine.cli.failing import Commands, reader_has_gone, say_why
from engine.cli.output import prepare_streams, say
from engine.cli.startup import collect_rarely, ending_at_once
from engine.execution.process import few_arenas, without_blas_threads, without_telemetry
from engine.version import __version__

app = typer.Typer(
    name="gaussmeter",
    cls=Commands,
    help="Counts every value of a model checkpoint, keeps the counts in DuckDB, and answers questions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the answer is no, 2 wrong use or bad input, 3 a failure while running.",
)

_debug = False


def _version(wanted: bool) -> None:
    if wanted:
        say(f"gaussmeter {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    global _debug  # noqa: PLW0603 - the one switch of the process
    _debug = debug


app.command()(scanning.scan)
app.command()(scanning.check)
app.command()(deltas.delta)
app.command()(merging.merge)
app.command()(editing.edit)
app.command()(tuning.tune)
app.command()(verifying.verify)
app.command()(packing.pack)
app.command()(exporting.export)
app.command("import")(exporting.import_)
app.command()(jobs.job)
app.command("ls")(ask.ls)
app.command()(ask.show)
app.command()(ask.sql)
app.command()(ask.paper)
app.command()(comparing.compare)
app.command()(comparing.nearest)
app.command()(simulating.simulate)
app.command()(picturing.plot)
app.command()(picturing.report)


def command() -> None:
    """Be the program `gaussmeter`."""
    with ending_at_once():
        main()


def main() -> None:
    """Run the command line and exit."""
    prepare_streams()
    few_arenas()
    without_blas_threads()
    without_telemetry()
    collect_rarely()
    try:
        app()
    except SystemExit as end:
        if reader_has_gone(end):
            sys.exit(0)
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - Python's 1 would be "the answer is no"
        sys.exit(say_why(error, debug=_debug))
