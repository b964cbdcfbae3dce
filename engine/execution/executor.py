"""The executor's contract: a pool of workers that take tasks and give back what became of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from traceback import clear_frames
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from engine.device.choosing import might_count
from engine.nouns.tasks import Task

Outcome = TypeVar("Outcome")
Body = Callable[[Task], Outcome]
MakeBody = Callable[[], Body[Outcome]]

IN_FLIGHT = 2
"""Tasks a worker may have: the one that runs and the next, so that it never waits for the driver."""
PATIENCE = 3600.0


@dataclass(frozen=True, slots=True)
class Done(Generic[Outcome]):
    """A task that ended well.

    Attributes:
        task: as it was submitted.
        outcome: what its body returned.
        seconds: how long it ran.
        worker: who ran it.
    """

    task: Task
    outcome: Outcome
    seconds: float
    worker: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that will not end well, however often it is tried.

    Attributes:
        task: as it was submitted.
        error: why.
    """

    task: Task
    error: BaseException


def let_go(error: BaseException) -> None:
    """Give back what a failed task holds, such as buffers that others wait for.

    An error keeps the frames that it came through, they keep their generators, and those what they took.

    Args:
        error: that the task's body raised; what it says, and of which lines, stays.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        clear_frames(one.__traceback__)
        left += [one.__cause__, one.__context__]


class Pool(Protocol[Outcome]):
    """Workers that run tasks of one body. A key must not be submitted again before it came back."""

    def room(self) -> int:
        """How many more tasks keep every worker busy."""
        ...

    def submit(self, task: Task) -> None:
        """Hand a task in; tasks begin in this order."""
        ...

    def busy(self) -> bool:
        """Whether some task has not come back."""
        ...

    def collect(self, seconds: float) -> list[Done[Outcome] | Failed]:
        """Wait until tasks come back, each once, or until so many seconds have passed.

        Raises:
            TaskError: there are no workers, and there will be none.
        """
        ...


class Executor(ABC):
    """Runs tasks somewhere, in any order. The in-process one defines what the result must be.

    Attributes:
        workers: how many tasks run at once.
        worker_bytes: memory of a worker apart from its tasks; 0 where it is a thread.
        device: what workers are asked to count on, one of `engine.device.choosing.DEVICES`.
    """

    workers: int
    worker_bytes: int = 0
    device: str = "cpu"

    def might_count(self, device: str) -> bool:
        """Whether a worker might count on a GPU, if it is asked for a device."""
        return might_count(device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - most have nothing to leave
        """Leave what was joined, and end what was started."""

    @abstractmethod
    def open(self, make_body: MakeBody[Outcome]) -> AbstractContextManager[Pool[Outcome]]:
        """Start the workers; they end with the block.

        Args:
            make_body: makes a worker's task body; called once per worker, so it must be picklable.
        """

    def run(self, make_body: MakeBody[Outcome], tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run every task once, as far as anyone can tell from the outcomes.

        Args:
            make_body: as for `open`.
            tasks: handed out in order, and asked for only when a worker will need one.

        Yields:
            the outcome of each task as it ends.

        Raises:
            GaussmeterError: a task failed for good; no further task is started.
        """
        queue = iter(tasks)
        with self.open(make_body) as pool:
            while True:
                while pool.room() > 0 and (task := next(queue, None)) is not None:
                    pool.submit(task)
                if not pool.busy():
                    return
                for ended in pool.collect(PATIENCE):
                    if isinstance(ended, Failed):
                        raise ended.error
                    yield ended.outcome
