"""The command that converts checkpoints."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from engine.cli import options
from engine.cli.failing import ended_by
from engine.cli.options import Format, parse_size
from engine.cli.output import printable, say
from engine.cli.progress import progress
from engine.cli.render import nbytes
from engine.errors import ConfigError
from engine.execution.process import without_scipy
from engine.nouns.defaults import RANGES


class Codec(StrEnum):
    """How chunks are compressed."""

    NONE = "none"
    ZSTD = "zstd"


def pack(
    uri: Annotated[str, typer.Argument(metavar="URI", help="A checkpoint, of any store and format.")],
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="A directory, a .zip file, or s3://...")],
    codec: Annotated[Codec, typer.Option(help="How to compress; none is read fastest.")] = Codec.NONE,
    workers: options.Workers = None,
    memory: options.Memory = None,
    ranges: options.Ranges = RANGES,
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Convert a checkpoint to a Zarr group, one array a tensor.

    Every shard is read back and compared. A pack that was interrupted goes on where it stopped.
    """
    without_scipy()
    from engine.verbs.pack import pack as run

    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"pack prints table or json, not {form}")
    with (
        progress(quiet=quiet) as listener,
        ended_by("interrupted; what was packed is kept, and the same command goes on with it"),
    ):
        report = run(
            uri,
            out,
            codec=codec.value,
            workers=workers,
            memory_bytes=parse_size(memory, "--memory"),
            ranges=ranges,
            listener=listener,
        )
    if form is Format.JSON:
        say(json.dumps(asdict(report), indent=1) + "\n")
        return
    if quiet:
        return
    for name, reason in report.skipped.items():
        say(printable(f"not packed: {name}: {reason}") + "\n")
    if report.status == "unchanged":
        say(f"{printable(report.out)}: unchanged, {report.tensors:,} tensors\n")
        return
    again = "completed an interrupted pack, wrote " if report.status == "resumed" else ""
    rate = f"{nbytes(report.nbytes_written)} in {report.seconds:.2f} s"
    say(f"{printable(report.out)}: {report.tensors:,} tensors, {again}{rate}\n")
