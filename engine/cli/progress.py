"""A progress bar on standard error, when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.nouns.events import Ended, Event, Listener, Planned, TaskDone, Waiting, ignore

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 2.0  # seconds of waiting before anything is said of it


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Listener]:
    """Show a bar with bytes, rate and time left for each checkpoint that is read.

    Yields:
        the listener that draws it; it draws nothing where nobody looks.
    """
    if quiet or not sys.stderr.isatty():
        yield ignore
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True)
    with bars:
        yield _Drawing(bars)


class _Drawing:
    """Turns events into a bar."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._current: TaskID | None = None
        self._said = False

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._close()
                self._current = self._bars.add_task(event.name, total=event.nbytes)
            case TaskDone() if self._current is not None:
                self._bars.advance(self._current, event.nbytes)
            case Waiting() if event.seconds > _PATIENCE and not self._said:
                self._said = True
                self._bars.console.print(
                    f"waiting for the warehouse, held by {event.holder}", highlight=False
                )
            case Ended():
                self._close()
            case _:
                pass

    def _close(self) -> None:
        if self._current is not None:
            self._bars.remove_task(self._current)
            self._current = None
