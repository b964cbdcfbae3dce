"""The executor's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from engine.nouns.records import Task

Outcome = TypeVar("Outcome")
Body = Callable[[Task], Outcome]


class Executor(Protocol):
    """Runs tasks somewhere, in any order. The in-process one defines what the result must be."""

    workers: int

    def run(self, make_body: Callable[[], Body[Outcome]], tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run every task once, as far as anyone can tell from the outcomes.

        Args:
            make_body: makes a worker's task body; called once per worker, so it must be picklable.
            tasks: handed out in order.

        Yields:
            the outcome of each task as it ends.

        Raises:
            GaussmeterError: a task failed for good; no further task is started.
        """
        ...
