"""Tasks that several subjects have in common: what one reading finds goes to each of them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from engine.execution.executor import Done, Failed
from engine.nouns.tasks import Outcome, Part, Task
from engine.verbs.scan_job import Counted, Found, ScanJob
from engine.verbs.scribe import Scribe


class SharedFeed:
    """Hands out common tasks, then those that jobs have alone; see `engine.execution.drive.Feed`.

    Args:
        jobs: one for each subject, begun with `shared_bytes` of these tasks.
        offsets: the ordinal in the tasks of the first tensor of each job.
        tasks: what they have in common.
        scribe: writes what jobs know.
    """

    def __init__(
        self, jobs: Sequence[ScanJob], offsets: Sequence[int], tasks: Sequence[Task], scribe: Scribe
    ) -> None:
        self._jobs, self._offsets, self._scribe = list(jobs), list(offsets), scribe
        self._keys = count()
        self._common = deque(tasks)
        self._owners: dict[int, ScanJob | None] = {}  # None for tasks of several
        self._write()

    def take(self) -> Task | None:
        """See `Feed`."""
        if self._common:
            return self._begun(self._common.popleft(), None)
        for job in self._jobs:
            task = job.take()
            if task is not None:
                return self._begun(task, job)
        return None

    def add(self, ended: Done[Counted] | Failed) -> None:
        """See `Feed`; a failure ends all subjects, and what is known of them is kept."""
        owner = self._owners.pop(ended.task.key)
        if isinstance(ended, Failed):
            for job in self._open():
                self._scribe.fail(job, ended)
            raise ended.error
        if owner is not None:
            owner.add(ended)
        else:
            self._share_out(ended)
        if any(j.complete for j in self._open()) or self._scribe.is_due(self._open()):
            self._write()

    def ended(self) -> bool:
        """See `Feed`."""
        return not self._open()

    def wait(self, seconds: float) -> None:
        """See `Feed`."""
        raise AssertionError("a job that is not over has a task, or one under way")

    def stop(self, error: BaseException) -> None:
        """Keep what is known of all that is not over."""
        for job in self._open():
            self._scribe.stop(job, error)

    def _open(self) -> list[ScanJob]:
        return [job for job in self._jobs if not job.over]

    def _begun(self, task: Task, owner: ScanJob | None) -> Task:
        task = replace(task, key=next(self._keys))
        self._owners[task.key] = owner
        return task

    def _share_out(self, ended: Done[Counted]) -> None:
        """Give each job its parts, and its bytes: the base's are those of the first."""
        own: dict[int, list[Part[Found]]] = {}
        for part in ended.outcome.parts:
            number = bisect_right(self._offsets, part.tensor) - 1
            own.setdefault(number, []).append(replace(part, tensor=part.tensor - self._offsets[number]))
        notes = ended.outcome.notes  # of all of them; said once
        for number, nbytes in shared_bytes(ended.task, self._offsets).items():
            parts = tuple(own.get(number, ()))
            outcome: Outcome[Found] = Outcome(ended.task.key, nbytes, parts, notes)
            notes = ()
            self._jobs[number].add(replace(ended, outcome=outcome))

    def _write(self) -> None:
        for _, error in self._scribe.write(self._open()):
            raise error


def shared_bytes(task: Task, offsets: Sequence[int]) -> dict[int, int]:
    """How many bytes of a task each job is told of, by the job's number; their sum is the task's."""
    numbers = sorted({bisect_right(offsets, ordinal) - 1 for ordinal in ordinals_of(task)})
    return {
        n: task.nbytes // len(numbers) + (task.nbytes % len(numbers) if n == numbers[0] else 0)
        for n in numbers
    }


def ordinals_of(task: Task) -> set[int]:
    """The tensors that a derived task finds something of."""
    steps = {ordinal for step in task.steps for _, ordinal in step.differences}
    merges = {ordinal for merge in task.merges for ordinal in merge.ordinals}
    found = steps | merges | {product.ordinal for product in task.products}
    return found or {chunk.tensor for chunk in task.chunks}  # of a scan
