"""The one loop that keeps workers busy."""

from __future__ import annotations

from typing import Protocol, TypeVar

from engine.execution.executor import Done, Failed, Pool
from engine.nouns.tasks import Task

Taken = TypeVar("Taken")
_PATIENCE = 0.2  # seconds after which whoever had nothing to do is asked again


class Feed(Protocol[Taken]):
    """Has tasks, and wants to know what became of them."""

    def take(self) -> Task | None:
        """The next task; None if there is none now."""
        ...

    def add(self, ended: Done[Taken] | Failed) -> None:
        """Hear of a task that was taken."""
        ...

    def ended(self) -> bool:
        """Whether there will be no more tasks."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until there may be another task, at most so long; called when none is under way."""
        ...


def drive(pool: Pool[Taken], feed: Feed[Taken]) -> None:
    """Run tasks until a feed has ended and all of them came back.

    Raises:
        Exception: whatever the feed raises when it hears of a failure.
    """
    while True:
        while pool.room() > 0 and (task := feed.take()) is not None:
            pool.submit(task)
        if pool.busy():
            for ended in pool.collect(_PATIENCE):
                feed.add(ended)
        elif feed.ended():
            return
        else:
            feed.wait(_PATIENCE)
