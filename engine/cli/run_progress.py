"""Bars of adaptation runs on standard error, when that is a terminal: updates, loss and score."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.cli.output import printable
from engine.nouns.events import Event, Listener, RunBegun, RunEnded, RunStepped, Waiting, ignore

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SMOOTH = 0.9
_PATIENCE = 2.0  # seconds of waiting before anything is said of it


@contextmanager
def run_progress(*, quiet: bool = False) -> Iterator[Listener]:
    """Show a bar for each run that is under way.

    Yields:
        the listener that draws them; it draws nothing where nobody looks.
    """
    if quiet or not sys.stderr.isatty():
        yield ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[found]}", markup=False),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    with bars:
        yield _Drawing(bars)


class _Drawing:
    """Turns events into bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._open: dict[str, TaskID] = {}
        self._loss: dict[str, float] = {}
        self._score: dict[str, float] = {}
        self._said = False

    def __call__(self, event: Event) -> None:
        match event:
            case RunBegun():
                self._begin(event)
            case RunStepped():
                self._step(event)
            case RunEnded():
                self._end(event)
            case Waiting() if event.seconds > _PATIENCE and not self._said:
                self._said = True
                self._say(f"waiting for the warehouse, held by {event.holder}")
            case _:
                pass

    def _begin(self, event: RunBegun) -> None:
        if event.name in self._open:
            self._say(f"{event.name}: its worker was lost; goes on from update {event.step:,}")
            self._bars.update(self._open[event.name], completed=event.step)
            return
        total, name = event.updates, printable(event.name)
        self._open[event.name] = self._bars.add_task(name, total=total, completed=event.step, found="")

    def _step(self, event: RunStepped) -> None:
        loss = event.metrics.get("loss")
        if loss is not None:
            before = self._loss.get(event.name, loss)
            self._loss[event.name] = _SMOOTH * before + (1 - _SMOOTH) * loss
        if "eval_score" in event.metrics:
            self._score[event.name] = event.metrics["eval_score"]
        if event.name in self._open:
            parts = [f"loss {self._loss[event.name]:.4f}"] if event.name in self._loss else []
            parts += [f"score {self._score[event.name]:.2f}"] if event.name in self._score else []
            self._bars.update(self._open[event.name], completed=event.step, found=", ".join(parts))

    def _end(self, event: RunEnded) -> None:
        bar = self._open.pop(event.name, None)
        if bar is not None:
            self._bars.remove_task(bar)
        score = f": score {event.score:.2f}" if event.score is not None else ""
        self._say(f"{event.status} {event.name}{score}{': ' * bool(event.reason)}{event.reason}")

    def _say(self, text: str) -> None:
        self._bars.console.print(printable(text), highlight=False, markup=False, emoji=False)
