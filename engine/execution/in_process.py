"""The reference executor: threads of this process, which the kernels let run side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import current_thread, local
from typing import Generic

from engine.device.choosing import choose
from engine.execution.executor import (
    IN_FLIGHT,
    Body,
    Done,
    Executor,
    Failed,
    MakeBody,
    Outcome,
    Pool,
    let_go,
)
from engine.nouns.tasks import Task


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InProcessExecutor(Executor):
    """Runs tasks on threads.

    Args:
        workers: how many; None for one per core.
        device: what they are asked to count on.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """

    def __init__(self, workers: int | None = None, device: str = "cpu") -> None:
        self.workers, self.device = workers or available_cores(), device
        if device != "auto":
            choose(device)

    @contextmanager
    def open(self, make_body: MakeBody[Outcome]) -> Iterator[Pool[Outcome]]:
        """See `Executor`; on the way out, tasks that run are waited for, and those that wait are dropped."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="gaussmeter")
        try:
            yield _Threads(pool, self.workers, make_body)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Threads(Generic[Outcome]):
    def __init__(self, pool: ThreadPoolExecutor, workers: int, make_body: MakeBody[Outcome]) -> None:
        self._pool, self._most, self._make_body = pool, IN_FLIGHT * workers, make_body
        self._own = local()
        self._running: dict[Future[Done[Outcome]], Task] = {}

    def room(self) -> int:
        return self._most - len(self._running)

    def submit(self, task: Task) -> None:
        self._running[self._pool.submit(self._work, task)] = task

    def busy(self) -> bool:
        return bool(self._running)

    def collect(self, seconds: float) -> list[Done[Outcome] | Failed]:
        done, _ = wait(self._running, seconds, FIRST_COMPLETED)
        return [self._ended(future, self._running.pop(future)) for future in done]

    def _ended(self, future: Future[Done[Outcome]], task: Task) -> Done[Outcome] | Failed:
        error = future.exception()
        return future.result() if error is None else Failed(task, error)

    def _work(self, task: Task) -> Done[Outcome]:
        if not hasattr(self._own, "body"):
            self._own.body = self._make_body()
        body: Body[Outcome] = self._own.body
        began = time.monotonic()
        try:
            outcome = body(task)
        except BaseException as error:
            let_go(error)
            raise
        return Done(task, outcome, time.monotonic() - began, current_thread().name)
