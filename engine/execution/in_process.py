"""The reference executor: threads of this process, which the kernels let run side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import local

from engine.execution.executor import Body, Outcome
from engine.nouns.records import Task


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InProcessExecutor:
    """Runs tasks on threads, at most two per thread in flight.

    Args:
        workers: how many threads; None for one per core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or available_cores()

    def run(self, make_body: Callable[[], Body[Outcome]], tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run tasks; see `Executor`."""
        own = local()

        def work(task: Task) -> Outcome:
            if not hasattr(own, "body"):
                own.body = make_body()
            body: Body[Outcome] = own.body
            return body(task)

        queue = iter(tasks)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="gaussmeter")
        running: set[Future[Outcome]] = set()
        try:
            running |= {pool.submit(work, t) for t in islice(queue, 2 * self.workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(work, t) for t in islice(queue, len(done))}
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
