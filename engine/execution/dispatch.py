"""Which worker gets which task, and what happens when one is lost, fails or takes too long.

Nothing here knows Ray, a network or the time of day: what happens is told, and what to do is answered, so
that every failure can be played through in a test.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engine.execution.executor import IN_FLIGHT
from engine.nouns.records import Task

MOST_FAILURES = 4
"""A task that its workers fail or die of so often fails for good."""
MOST_COPIES = 3
"""So many workers may have one task at a time."""
SLOWER = 8.0
"""A task that takes so many times what its bytes should take is begun elsewhere."""
FIRST_LIMIT = 60.0
"""Seconds that a task may take while nobody knows how long tasks take."""
LEAST_LIMIT = 10.0
"""Seconds that any task may take."""
GIVE_UP = 2.0
"""A worker that is silent for so many limits is replaced."""


@dataclass(slots=True)
class Attempt:
    """A task that a worker has.

    Attributes:
        task: which.
        since: when the worker could begin with it.
    """

    task: Task
    since: float


@dataclass(slots=True)
class Worker:
    """What is known of a worker.

    Attributes:
        name: its own.
        node: its machine.
        has: what it was given, in order; it does the first.
        suspect: whether it took too long; it gets nothing until it answers.
    """

    name: str
    node: str
    has: deque[Attempt] = field(default_factory=deque)
    suspect: bool = False


@dataclass(slots=True)
class _Standing:
    task: Task
    failures: int = 0
    late: int = 0
    copies: int = 0
    queued: bool = False
    failed_on: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Late:
    """A worker that takes too long.

    Attributes:
        worker: which.
        tasks: that are begun elsewhere.
        seconds: how long it has been at the first of what it has.
        silent: whether it should be replaced.
    """

    worker: str
    tasks: tuple[Task, ...]
    seconds: float
    silent: bool


class Dispatch:
    """The state of a pool.

    Args:
        task_seconds: how long an attempt may take; None learns it from the tasks that end.
    """

    def __init__(self, task_seconds: float | None = None) -> None:
        self._task_seconds = task_seconds
        self._queue: deque[int] = deque()
        self._free: list[dict[str, None]] = [{} for _ in range(IN_FLIGHT)]  # workers by how much they have
        self._tasks: dict[int, _Standing] = {}
        self.workers: dict[str, Worker] = {}
        self._pace: float | None = None  # seconds for a byte, lately

    def unfinished(self) -> int:
        """How many tasks have not come back."""
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        """Take a task; tasks begin in this order."""
        self._tasks[task.key] = _Standing(task, queued=True)
        self._queue.append(task.key)

    def join(self, name: str, node: str) -> None:
        """A worker is ready."""
        self.workers[name] = Worker(name, node)
        self._settle(self.workers[name])

    def hand_out(self, now: float) -> list[tuple[str, Task, int]]:
        """Give what waits to whoever has least.

        Returns:
            (worker, task, attempt) for each task to send.
        """
        sent: list[tuple[str, Task, int]] = []
        for free in self._free:
            for name in list(free):
                if not self._queue:
                    return sent
                worker = self.workers[name]
                standing = self._next_for(worker)
                if standing is None:
                    continue
                worker.has.append(Attempt(standing.task, now))
                self._settle(worker)
                sent.append((name, standing.task, standing.failures + standing.late + 1))
        return sent

    def _next_for(self, worker: Worker) -> _Standing | None:
        """The first that waits and that this worker should have."""
        passed: list[int] = []
        chosen = None
        while self._queue and chosen is None:
            standing = self._tasks.get(self._queue.popleft())
            if standing is None:  # came back while it waited
                continue
            if self._is_for_another(standing, worker):
                passed.append(standing.task.key)
                continue
            standing.queued, standing.copies = False, standing.copies + 1
            chosen = standing
        self._queue.extendleft(reversed(passed))
        return chosen

    def _is_for_another(self, standing: _Standing, worker: Worker) -> bool:
        """Whether a worker has a task already, or its machine could not do it and there are others."""
        if standing.copies and any(a.task.key == standing.task.key for a in worker.has):
            return True
        if worker.node not in standing.failed_on:
            return False
        return any(w.node not in standing.failed_on for w in self.workers.values())

    def _settle(self, worker: Worker) -> None:
        """Note how much a worker has room for."""
        for depth, free in enumerate(self._free):
            if depth == len(worker.has) and not worker.suspect and worker.name in self.workers:
                free[worker.name] = None
            else:
                free.pop(worker.name, None)

    def done(self, name: str, key: int, now: float, seconds: float) -> bool:
        """A worker has done a task.

        Returns:
            whether it is the first to have done it.
        """
        self._take_off(name, key, now)
        standing = self._tasks.pop(key, None)
        if standing is None:
            return False
        pace = seconds / max(standing.task.nbytes, 1 << 20)
        self._pace = pace if self._pace is None else max(pace, 0.9 * self._pace + 0.1 * pace)
        return True

    def failed(self, name: str, key: int, now: float, *, again: bool) -> bool:
        """A worker could not do a task.

        Args:
            name: the worker.
            key: the task's.
            now: the time.
            again: whether another worker might.

        Returns:
            whether the task has failed for good; it is forgotten then.
        """
        self._take_off(name, key, now)
        standing = self._tasks.get(key)
        if standing is None:
            return False
        standing.failures += 1
        if name in self.workers:
            standing.failed_on.add(self.workers[name].node)
        if again and standing.failures < MOST_FAILURES:
            self._queue_again(standing)
            return False
        if again and standing.copies:
            return False  # somebody else is still at it
        del self._tasks[key]
        return True

    def lost(self, name: str) -> tuple[list[Task], list[Task]]:
        """A worker is gone. Only the task that it was at is blamed.

        Returns:
            the tasks that are tried again, and those that have failed for good.
        """
        worker = self.workers.pop(name)
        self._settle(worker)
        again, gone = [], []
        for position, attempt in enumerate(worker.has):
            standing = self._tasks.get(attempt.task.key)
            if standing is None:
                continue
            standing.copies -= 1
            standing.failures += position == 0 and not worker.suspect
            if standing.failures < MOST_FAILURES:
                again.append(attempt.task)
            elif not standing.copies:
                del self._tasks[attempt.task.key]
                gone.append(attempt.task)
        for task in reversed(again):
            self._queue_again(self._tasks[task.key])
        return again, gone

    def late(self, now: float) -> list[Late]:
        """Find the workers that take too long; what they have is queued again, before all else."""
        found = []
        for worker in self.workers.values():
            if not worker.has:
                continue
            first = worker.has[0]
            seconds, limit = now - first.since, self._limit(first.task)
            if seconds <= limit:
                continue
            tasks: tuple[Task, ...] = ()
            if not worker.suspect:
                worker.suspect = True
                self._settle(worker)
                tasks = tuple(a.task for a in worker.has if self._once_more(a.task))
            silent = seconds > GIVE_UP * limit
            if tasks or silent:
                found.append(Late(worker.name, tasks, seconds, silent))
        return found

    def exhausted(self) -> list[Task]:
        """Tasks of which as many attempts as are made took longer than a limit that the user set."""
        if self._task_seconds is None:
            return []
        gone = [s.task for s in self._tasks.values() if s.late >= MOST_COPIES]
        for task in gone:
            del self._tasks[task.key]
        return gone

    def _once_more(self, task: Task) -> bool:
        standing = self._tasks.get(task.key)
        if standing is None:
            return False
        standing.late += 1
        if standing.copies >= MOST_COPIES:
            return False
        self._queue_again(standing)
        return True

    def _limit(self, task: Task) -> float:
        if self._task_seconds is not None:
            return self._task_seconds
        if self._pace is None:
            return FIRST_LIMIT
        standing = self._tasks.get(task.key)
        patience: int = 2 ** (standing.late if standing else 0)  # perhaps it is the task that is slow
        return patience * max(LEAST_LIMIT, SLOWER * self._pace * max(task.nbytes, 1 << 20))

    def _queue_again(self, standing: _Standing) -> None:
        if not standing.queued:
            standing.queued = True
            self._queue.appendleft(standing.task.key)

    def _take_off(self, name: str, key: int, now: float) -> None:
        """Note that a worker has answered."""
        worker = self.workers.get(name)
        if worker is None:
            return
        worker.suspect = False
        worker.has = deque(a for a in worker.has if a.task.key != key)
        self._settle(worker)
        if worker.has:
            worker.has[0].since = max(worker.has[0].since, now)
        standing = self._tasks.get(key)
        if standing is not None:
            standing.copies -= 1
