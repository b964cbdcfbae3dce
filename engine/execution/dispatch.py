"""Which worker gets which task, and what happens when one is lost, fails or takes too long.

Nothing here knows Ray, a network or the time of day: what happens is told, and what to do is answered, so
that every failure can be played through in a test.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from engine.execution.executor import IN_FLIGHT
from engine.nouns.tasks import Task

MOST_FAILURES = 4
"""A task that its workers fail or die of so often fails for good."""
MOST_COPIES = 3
"""So many workers may have one task at a time."""
SLOWER = 8.0
"""A task that takes so many times what its bytes should take is begun elsewhere."""
FIRST_LIMIT = 60.0
"""Seconds that a task may take while nobody knows how long tasks take."""
_FIRST_PACE = 1e-9  # seconds meanwhile for what is more than reading: singular values
LEAST_LIMIT = 10.0
"""Seconds that any task may take."""
GIVE_UP = 2.0
"""A worker that is silent for so many limits is replaced."""
_MOST_PATIENCE = 10
"""A limit is doubled so often at most."""


@dataclass(slots=True, eq=False)
class _Standing:
    """How a task stands; a later task of the same key has another."""

    task: Task
    failures: int = 0
    late: int = 0
    copies: int = 0
    begun: int = 0
    queued: bool = False
    over: bool = False
    failed_on: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Attempt:
    """A task that a worker has.

    Attributes:
        standing: how the task stands.
        since: when the worker could begin with it.
    """

    standing: _Standing
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
        self._queue: deque[_Standing] = deque()
        self._free: list[dict[str, None]] = [{} for _ in range(IN_FLIGHT)]  # workers by how much they have
        self._tasks: dict[int, _Standing] = {}
        self._nodes: Counter[str] = Counter()
        self.workers: dict[str, Worker] = {}
        self._pace: float | None = None  # seconds for a byte, lately

    def unfinished(self) -> int:
        """How many tasks have not come back."""
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        """Take a task; tasks begin in this order. Its key may be that of one which came back before."""
        standing = self._tasks[task.key] = _Standing(task, queued=True)
        self._queue.append(standing)

    def join(self, name: str, node: str) -> None:
        """A worker is ready."""
        self.workers[name] = Worker(name, node)
        self._nodes[node] += 1
        self._settle(self.workers[name])

    def hand_out(self, now: float) -> list[tuple[str, Task, int]]:
        """Give what waits to whoever has least.

        Returns:
            (worker, task, attempt) for each task to send.
        """
        sent: list[tuple[str, Task, int]] = []
        idle: set[str] = set()  # nodes that should have nothing of what waits
        for free in self._free:
            for name in list(free):
                if not self._queue:
                    return sent
                worker = self.workers[name]
                standing = None if worker.node in idle else self._next_for(worker, idle)
                if standing is None:
                    continue
                standing.queued = False
                standing.copies += 1
                standing.begun += 1
                worker.has.append(Attempt(standing, now))
                self._settle(worker)
                sent.append((name, standing.task, standing.begun))
        return sent

    def _next_for(self, worker: Worker, idle: set[str]) -> _Standing | None:
        """The first that waits and that this worker should have."""
        passed: list[_Standing] = []
        chosen, has_one = None, False
        while self._queue and chosen is None:
            standing = self._queue.popleft()
            if standing.over:  # came back while it waited
                continue
            if any(a.standing is standing for a in worker.has):
                has_one = True
                passed.append(standing)
            elif self._is_for_another(standing, worker.node):
                passed.append(standing)
            else:
                chosen = standing
        self._queue.extendleft(reversed(passed))
        if chosen is None and not has_one:  # then its neighbours need not look: queues may be long
            idle.add(worker.node)
        return chosen

    def _is_for_another(self, standing: _Standing, node: str) -> bool:
        """Whether a machine could not do a task, and there are others that may."""
        return node in standing.failed_on and not self._nodes.keys() <= standing.failed_on

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
        standing = self._take_off(name, key, now)
        if standing is None:
            return False
        self._forget(standing)
        pace = seconds / max(standing.task.effort, 1 << 20)
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
        standing = self._take_off(name, key, now)
        if standing is None:
            return False
        standing.failures += 1
        standing.failed_on.add(self.workers[name].node)
        if again and standing.failures < MOST_FAILURES:
            self._queue_again(standing)
            return False
        if again and standing.copies:
            return False  # somebody else is still at it
        self._forget(standing)
        return True

    def lost(self, name: str) -> tuple[list[Task], list[Task]]:
        """A worker is gone, or did not answer for too long. Only the task that it was at is blamed.

        Returns:
            the tasks that are tried again, and those that have failed for good.
        """
        worker = self.workers.pop(name)
        self._settle(worker)
        self._nodes -= Counter((worker.node,))
        again, gone = [], []
        for position, attempt in enumerate(worker.has):
            standing = attempt.standing
            if standing.over:
                continue
            standing.copies -= 1
            standing.failures += position == 0
            if standing.failures < MOST_FAILURES:
                again.append(standing)
            elif not standing.copies:
                self._forget(standing)
                gone.append(standing)
        for standing in reversed(again):
            self._queue_again(standing)
        return [s.task for s in again], [s.task for s in gone]

    def late(self, now: float) -> list[Late]:
        """Find the workers that take too long; what they have is queued again, before all else."""
        found: list[Late] = []
        again: list[_Standing] = []
        for worker in self.workers.values():
            if not worker.has:
                continue
            first = worker.has[0]
            seconds, limit = now - first.since, self._limit(first.standing)
            if seconds <= limit:
                continue
            if worker.suspect:
                if seconds > GIVE_UP * limit:
                    found.append(Late(worker.name, (), seconds, silent=True))
                continue
            worker.suspect = True
            self._settle(worker)
            first.standing.late += 1  # the others were not begun
            waiting = (a.standing for a in worker.has if not a.standing.over)
            elsewhere = [s for s in waiting if s.copies < MOST_COPIES]
            again += elsewhere
            if elsewhere:
                found.append(Late(worker.name, tuple(s.task for s in elsewhere), seconds, silent=False))
        for standing in reversed(again):
            self._queue_again(standing)
        return found

    def exhausted(self) -> list[Task]:
        """Tasks of which as many attempts as are made took longer than a limit that the user set."""
        if self._task_seconds is None:
            return []
        gone = [s for s in self._tasks.values() if s.late >= MOST_COPIES]
        for standing in gone:
            self._forget(standing)
        return [s.task for s in gone]

    def _limit(self, standing: _Standing) -> float:
        if self._task_seconds is not None:
            return self._task_seconds
        effort = max(standing.task.effort, 1 << 20)
        usual = FIRST_LIMIT + SLOWER * _FIRST_PACE * (standing.task.effort - standing.task.nbytes)
        if self._pace is not None:
            usual = max(LEAST_LIMIT, SLOWER * self._pace * effort)
        if standing.over:  # nobody waits for it
            return usual
        patience: int = 2 ** min(standing.late, _MOST_PATIENCE)  # perhaps it is the task that is slow
        return patience * usual

    def _queue_again(self, standing: _Standing) -> None:
        if not standing.queued:
            standing.queued = True
            self._queue.appendleft(standing)

    def _forget(self, standing: _Standing) -> None:
        """A task is over; what other workers have of it, and its place in the queue, mean nothing now."""
        standing.over = True
        del self._tasks[standing.task.key]

    def _take_off(self, name: str, key: int, now: float) -> _Standing | None:
        """Note that a worker has answered.

        Returns:
            how the task stands; None if nobody waits for the answer.
        """
        worker = self.workers.get(name)
        attempt = next((a for a in worker.has if a.standing.task.key == key), None) if worker else None
        if worker is None or attempt is None:
            return None
        worker.suspect = False
        worker.has.remove(attempt)
        self._settle(worker)
        if worker.has:
            worker.has[0].since = max(worker.has[0].since, now)
        attempt.standing.copies -= 1
        return None if attempt.standing.over else attempt.standing
