"""When jobs' rows are written, and how a job ends before its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from engine.errors import FormatError, TaskError
from engine.execution.executor import Failed
from engine.nouns.events import Listener, TaskFailed
from engine.verbs.scan_job import ScanJob
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import discard, forget_partials

FLUSH_SECONDS = 2.0
"""A crash costs at most the work of this long, and of the tasks that were running; of an eighth of it, where
writing is quick."""
_LEAST = 1 / 8
_SHARE = 20  # writing takes no more than a twentieth of the time
FLUSH_BINS = 1_000_000
"""Finished tensors wait in memory until their bins are this many, at the most."""


class Scribe:
    """Writes what jobs know, many in one transaction, because opening the warehouse is what takes time.

    Args:
        store: the warehouse.
        listener: told what fails.
    """

    def __init__(self, store: Warehouse, listener: Listener) -> None:
        self._store, self._listener = store, listener
        self._written = time.monotonic()
        self._cost = 0.0

    def is_due(self, jobs: Iterable[ScanJob]) -> bool:
        """Whether what jobs have should be written now."""
        patience = max(_LEAST * FLUSH_SECONDS, min(_SHARE * self._cost, FLUSH_SECONDS))
        return time.monotonic() - self._written > patience or sum(j.bins for j in jobs) > FLUSH_BINS

    def write(self, jobs: Sequence[ScanJob]) -> list[tuple[ScanJob, TaskError]]:
        """Write everything that jobs know, at once; those without news cost nothing.

        Returns:
            those that could not be written, because somebody else removed their subject.
        """
        began = time.monotonic()
        failed = self._put([job for job in jobs if job.has_news])
        self._written = time.monotonic()
        self._cost = self._written - began
        return failed

    def _put(self, jobs: Sequence[ScanJob]) -> list[tuple[ScanJob, TaskError]]:
        if not jobs:
            return []
        with self._store.writing() as connection:
            for job in jobs:
                job.write(connection)
        failed = []
        for job in jobs:
            try:
                job.written()
            except TaskError as error:
                failed.append((job, TaskError(error.message, file=str(self._store.path))))
        return failed

    def stop(self, job: ScanJob, error: BaseException) -> None:
        """End a job before its end: keep what it knows, unless it is of files that have changed.

        Raises:
            TaskError: its subject was removed meanwhile.
        """
        try:
            if isinstance(error, FormatError):
                job.forget()
                with self._store.writing() as connection:
                    if job.standing.added:  # what it was before is true of the file that was there before
                        forget_partials(connection, job.standing.subject_id)
                    else:
                        discard(connection, job.standing.subject_id)
            elif isinstance(error, (TaskError, KeyboardInterrupt)):
                for _, failure in self._put([job]):  # the others' time goes on
                    raise failure
        finally:
            if not job.over:
                job.end()

    def fail(self, job: ScanJob, failed: Failed) -> None:
        """End a job of which a task failed; see `stop`."""
        self._listener(TaskFailed(failed.task.key, job.checkpoint.name, str(failed.error)))
        self.stop(job, failed.error)
