"""Who listens to a run beside the progress bar: a file of JSON lines, and a log's reader."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TextIO

from engine.cli.output import printable
from engine.cli.progress import progress
from engine.errors import ConfigError, TaskError
from engine.nouns.events import (
    Event,
    Judged,
    Listener,
    NoWorkers,
    Placed,
    RunBegun,
    RunEnded,
    TaskRetried,
    WorkerLost,
)

Drawn = AbstractContextManager[Listener]

_QUIET = ("planned", "unchanged", "skipped")  # the summary counts them


def together(*listeners: Listener) -> Listener:
    """One listener that tells all."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


@contextmanager
def listening(
    events: str | None, *, quiet: bool, log: bool = False, draw: Callable[..., Drawn] | None = None
) -> Iterator[Listener]:
    """All who listen to a command.

    Args:
        events: where a line of JSON for each event goes, see `recording`.
        quiet: whether nothing is drawn or logged.
        log: whether lines are logged where no bar is drawn.
        draw: who draws bars, in place of the usual one.
    """
    with ExitStack() as stack:
        drawn = (draw or progress)(quiet=quiet or events == "-")  # a bar would wrap the lines
        listeners = [stack.enter_context(drawn), stack.enter_context(recording(events))]
        if not quiet and not sys.stderr.isatty() and events != "-":
            listeners.append(logging_to(sys.stderr) if log else placing_to(sys.stderr))
        yield together(*(listener for listener in listeners if listener is not None))


@contextmanager
def recording(path: str | None) -> Iterator[Listener | None]:
    """Write a line of JSON for each event, `{"at": ..., "event": "TaskDone", ...}`.

    Args:
        path: the file, which is added to; `-` for standard error; None for nothing.

    Raises:
        ConfigError: it cannot be opened.
        TaskError: by the listener: it cannot be written any more.
    """
    if path is None:
        yield None
    elif path == "-":
        yield _lines(sys.stderr, "standard error")
    else:
        try:
            file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123 - closed below
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot be written: {reason}", file=path) from error
        try:
            yield _lines(file, path)
        finally:
            with suppress(OSError):  # a line that could not be written was told of
                file.close()


def _lines(file: TextIO, name: str) -> Listener:
    def write(event: Event) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            file.write(json.dumps({"at": at, "event": type(event).__name__, **asdict(event)}) + "\n")
            file.flush()
        except OSError as error:
            raise TaskError(f"events cannot be written: {error.strerror}", file=name) from error

    return write


def placing_to(file: TextIO) -> Listener:
    """Write where it is counted, if that is not where it always is; each sentence once."""
    said: set[str] = set()

    def write(event: Event) -> None:
        if isinstance(event, Placed) and event.text not in said:
            said.add(event.text)
            file.write(printable(event.text) + "\n")
            file.flush()

    return write


def logging_to(file: TextIO) -> Listener:
    """Write a line for each checkpoint, and for what went wrong on the way: for logs, not for terminals."""

    def write(event: Event) -> None:
        match event:
            case Judged() if event.status not in _QUIET:
                reason = event.reason.removeprefix(f"{event.uri}: ")
                text = f"{event.status:<9} {event.uri}" + (f": {reason}" if reason else "")
            case RunBegun():
                again = f" again, from update {event.step:,}" if event.step else ""
                text = f"training  {event.name}{again}"
            case RunEnded():
                score = f": score {event.score:.2f}" if event.score is not None else ""
                text = f"{event.status:<9} {event.name}{score}" + (
                    f": {event.reason}" if event.reason else ""
                )
            case NoWorkers():
                text = f"waiting   no worker has come in {event.seconds:.0f} s"
            case Placed():
                text = f"device    worker {event.worker}: {event.text}"
            case WorkerLost():
                text = f"lost      worker {event.worker}: {event.reason}"
            case TaskRetried():
                text = f"again     task {event.key}, of {event.worker}: {event.reason}"
            case _:
                return
        file.write(f"{time.strftime('%H:%M:%S')} {printable(text)}\n")
        file.flush()

    return write
