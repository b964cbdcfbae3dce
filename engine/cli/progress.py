"""A progress bar on standard error, when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.cli.output import printable
from engine.nouns.events import (
    Ended,
    Event,
    Found,
    Judged,
    Listener,
    NoWorkers,
    Placed,
    Planned,
    TaskDone,
    Waiting,
    WorkerJoined,
    WorkerLost,
    ignore,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 2.0  # seconds of waiting before anything is said of it
_MOST_BARS = 12


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
    name = TextColumn("{task.description}", markup=False)  # brackets in a name mean nothing
    bars = Progress(name, *columns, console=Console(stderr=True), transient=True)
    with bars:
        yield _Drawing(bars)


class _Drawing:
    """Turns events into bars: one for each checkpoint, and a line for a census and its workers."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._open: dict[str, TaskID] = {}
        self._census: TaskID | None = None
        self._found = self._judged = self._planned = self._read = 0
        self._workers: set[str] = set()
        self._said = False
        self._placed: set[str] = set()

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._plan(event)
            case TaskDone():
                self._read += event.nbytes
                if event.name in self._open:
                    self._bars.advance(self._open[event.name], event.nbytes)
            case Waiting() if event.seconds > _PATIENCE and not self._said:
                self._said = True
                self._say(f"waiting for the warehouse, held by {event.holder}")
            case NoWorkers():
                self._say(f"no worker has come in {event.seconds:.0f} s")
            case Placed() if event.text not in self._placed:
                self._placed.add(event.text)
                self._say(event.text)
            case WorkerJoined():
                self._workers.add(event.worker)
            case WorkerLost():
                self._workers.discard(event.worker)  # one that was starting is not among them
                self._say(f"lost worker {event.worker}: {event.reason}")
            case Found():
                self._found += event.checkpoints
            case Judged():
                self._judged += 1
            case Ended():
                self._close(event.name)
            case _:
                pass
        self._head()

    def _plan(self, event: Planned) -> None:
        """Draw a bar, which a second pass takes over from the first."""
        name = event.name.removesuffix(", second pass")
        self._planned += event.nbytes
        self._close(name)
        if len(self._open) < _MOST_BARS:
            self._open[name] = self._bars.add_task(printable(event.name), total=event.nbytes)

    def _say(self, text: str) -> None:
        self._bars.console.print(printable(text), highlight=False, markup=False, emoji=False)

    def _head(self) -> None:
        if not self._found:
            return
        if self._census is None:
            self._census = self._bars.add_task("", total=None)
        workers = f", {len(self._workers)} workers" if self._workers else ""
        text = f"{self._judged:,} of {self._found:,} checkpoints{workers}"
        self._bars.update(self._census, description=text, total=self._planned, completed=self._read)

    def _close(self, name: str) -> None:
        bar = self._open.pop(name, None)
        if bar is not None:
            self._bars.remove_task(bar)
