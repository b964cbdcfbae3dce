"""Who listens to a run beside the progress bar: a file of JSON lines, and a log's reader."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TextIO

from engine.cli.output import printable
from engine.cli.progress import progress
from engine.errors import ConfigError
from engine.nouns.events import Event, Judged, Listener, TaskRetried, WorkerLost

_QUIET = ("planned", "unchanged", "skipped")  # the summary counts them


def together(*listeners: Listener) -> Listener:
    """One listener that tells all."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


@contextmanager
def listening(events: str | None, *, quiet: bool, log: bool = False) -> Iterator[Listener]:
    """All who listen to a command.

    Args:
        events: where a line of JSON for each event goes, see `recording`.
        quiet: whether nothing is drawn or logged.
        log: whether lines are logged where no bar is drawn.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(progress(quiet=quiet)), stack.enter_context(recording(events))]
        if log and not quiet and not sys.stderr.isatty() and events != "-":
            listeners.append(logging_to(sys.stderr))
        yield together(*(listener for listener in listeners if listener is not None))


@contextmanager
def recording(path: str | None) -> Iterator[Listener | None]:
    """Write a line of JSON for each event, `{"at": ..., "event": "TaskDone", ...}`.

    Args:
        path: the file, which is added to; `-` for standard error; None for nothing.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        yield None
    elif path == "-":
        yield _lines(sys.stderr)
    else:
        try:
            file = open(path, "a", encoding="utf-8")  # noqa: SIM115, PTH123 - closed below
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", file=path) from error
        with file:
            yield _lines(file)


def _lines(file: TextIO) -> Listener:
    def write(event: Event) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        file.write(json.dumps({"at": at, "event": type(event).__name__, **asdict(event)}) + "\n")
        file.flush()

    return write


def logging_to(file: TextIO) -> Listener:
    """Write a line for each checkpoint, and for what went wrong on the way: for logs, not for terminals."""

    def write(event: Event) -> None:
        match event:
            case Judged() if event.status not in _QUIET:
                reason = event.reason.removeprefix(f"{event.uri}: ")
                text = f"{event.status:<9} {event.uri}" + (f": {reason}" if reason else "")
            case WorkerLost():
                text = f"lost      worker {event.worker}: {event.reason}"
            case TaskRetried():
                text = f"again     task {event.key}, of {event.worker}: {event.reason}"
            case _:
                return
        file.write(f"{time.strftime('%H:%M:%S')} {printable(text)}\n")
        file.flush()

    return write
