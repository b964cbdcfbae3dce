"""The tasks of many checkpoints as one stream, and what became of each checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from engine.errors import GaussmeterError, TaskError, shown
from engine.execution.executor import Done, Failed
from engine.nouns.candidate import Candidate
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Task
from engine.plan import Plan
from engine.storage.local import full_path
from engine.storage.uris import scheme_of
from engine.verbs.opening import Opener, Tried
from engine.verbs.scan_job import Counted, ScanJob, status_of
from engine.verbs.scribe import Scribe


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a checkpoint.

    Attributes:
        uri: where it is.
        name: the subject's name, "" if it is none.
        status: `planned` (of a dry run: it would be scanned), `scanned`, `resumed` (an interrupted scan was
            completed), `added` (what was asked for in addition to an earlier scan), `unchanged` (nothing
            was read), `skipped` (it was not asked for, or is over its budget), `refused` (it is damaged, or
            no checkpoint) or `failed` (a machine or a store failed; the next census tries again).
        reason: why it was skipped, refused or failed.
        fingerprint: of its files; "" if it was not opened.
        subject_id: its number in the warehouse.
        nbytes: bytes of its tensors.
        nbytes_read: bytes that were read of it.
        seconds: from its first task to its last.
    """

    uri: str
    name: str
    status: str
    reason: str = ""
    fingerprint: str = ""
    subject_id: int | None = None
    nbytes: int = 0
    nbytes_read: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all of it is in the warehouse."""
        return self.status in ("scanned", "resumed", "added", "unchanged")


@dataclass(frozen=True, slots=True)
class Ready:
    """A checkpoint that was opened.

    Attributes:
        checkpoint: what it holds.
        plan: of all of it.
        name: the subject's name.
    """

    checkpoint: Checkpoint
    plan: Plan
    name: str


@dataclass(slots=True, eq=False)
class _Running:
    job: ScanJob
    ready: Ready
    began: float


class CensusFeed:
    """Hands out the tasks of one checkpoint after the other; see `engine.execution.drive.Feed`.

    The next checkpoints are begun when the tasks of those before no longer keep every worker busy.

    Args:
        opener: gives checkpoints, or what is to be said of them at once.
        begin: enters checkpoints in the warehouse and begins their jobs; None for a dry run.
        scribe: writes what jobs know.
        judged: told what became of each.
        most_seconds: that a checkpoint may take; None for no limit.
    """

    def __init__(
        self,
        opener: Opener[Candidate, Ready | Entry],
        begin: Callable[[Sequence[Ready]], list[ScanJob]] | None,
        scribe: Scribe,
        judged: Callable[[Entry], None],
        most_seconds: float | None = None,
    ) -> None:
        self._opener, self._begin, self._scribe, self._judged = opener, begin, scribe, judged
        self._most_seconds = most_seconds
        self._running: list[_Running] = []
        self._under_way: dict[int, _Running] = {}
        self._keys = count()
        self._next: Task | None = None

    def has_task(self) -> bool:
        """Whether there is a task now."""
        self._next = self._next or self._find()
        return self._next is not None

    def take(self) -> Task | None:
        """See `Feed`."""
        task, self._next = self._next or self._find(), None
        return task

    def add(self, ended: Done[Counted] | Failed) -> None:
        """See `Feed`; a failure ends the checkpoint that it is of, and no other."""
        running = self._under_way.pop(ended.task.key)
        job = running.job
        if job.over:
            return  # what it found is of a checkpoint that was given up
        if isinstance(ended, Done):
            job.add(ended)
        else:
            error = ended.error if isinstance(ended.error, GaussmeterError) else unforeseen(ended.error)
            self._give_up(running, error, Failed(ended.task, error))
        if self._scribe.is_due(r.job for r in self._running):
            self._write()

    def ended(self) -> bool:
        """See `Feed`."""
        return self._opener.ended() and not self._running

    def wait(self, seconds: float) -> None:
        """See `Feed`."""
        if self._running:  # all of them complete: nothing is under way
            self._write()
        else:
            self._opener.wait(seconds)

    def stop(self) -> None:
        """Stop every checkpoint that was begun, and keep what is known of them."""
        self._write()
        for running in self._running:
            running.job.end()
        self._running.clear()

    def close(self) -> None:
        """Let go of what could not be stopped."""
        for running in self._running:
            running.job.close()

    def _find(self) -> Task | None:
        while True:
            self._stop_what_is_over_time()
            for running in self._running:
                task = running.job.take()
                if task is not None:
                    task = replace(task, key=next(self._keys))
                    self._under_way[task.key] = running
                    return task
            if not self._admit():
                return None

    def _admit(self) -> bool:
        """Begin what was opened meanwhile."""
        ready: list[Ready] = []
        heard = False
        while (tried := self._opener.next()) is not None:
            heard = True
            if isinstance(tried.opened, Ready):
                ready.append(tried.opened)
            else:
                self._judged(tried.opened or _not_opened(tried))
        if self._begin is None:
            for one in ready:
                self._judged(_planned(one))
        elif ready:
            began = time.monotonic()
            jobs = self._begin(ready)
            self._running += [_Running(j, r, began) for j, r in zip(jobs, ready, strict=True)]
        return heard

    def _write(self) -> None:
        """Write what is known of all, and end what is complete."""
        failed = dict(self._scribe.write([r.job for r in self._running]))
        for running in list(self._running):
            if running.job in failed:
                running.job.end()
                self._end(running, "failed", str(failed[running.job]))
            elif running.job.over:
                self._end(running, status_of(running.job.standing), "")

    def _stop_what_is_over_time(self) -> None:
        if self._most_seconds is None:
            return
        for running in list(self._running):
            if not running.job.complete and time.monotonic() - running.began > self._most_seconds:
                message = f"took longer than its budget of {self._most_seconds:g} s; what was counted is kept"
                self._give_up(running, TaskError(message, file=running.ready.checkpoint.uri))

    def _give_up(self, running: _Running, error: GaussmeterError, failed: Failed | None = None) -> None:
        try:
            if failed is not None:
                self._scribe.fail(running.job, failed)
            else:
                self._scribe.stop(running.job, error)
        except TaskError as removed:
            error = removed
        self._end(running, "failed" if isinstance(error, TaskError) else "refused", str(error))

    def _end(self, running: _Running, status: str, reason: str) -> None:
        self._running.remove(running)
        job, checkpoint = running.job, running.ready.checkpoint
        self._judged(
            Entry(
                uri=checkpoint.uri,
                name=job.standing.name,
                status=status,
                reason=reason,
                fingerprint=checkpoint.fingerprint,
                subject_id=job.standing.subject_id,
                nbytes=checkpoint.nbytes,
                nbytes_read=job.nbytes_read,
                seconds=time.monotonic() - running.began,
            )
        )


def _planned(ready: Ready) -> Entry:
    checkpoint = ready.checkpoint
    return Entry(checkpoint.uri, ready.name, "planned", "", checkpoint.fingerprint, None, ready.plan.nbytes)


def unforeseen(error: BaseException) -> TaskError:
    """What nobody foresaw, as a failure of one checkpoint."""
    failure = TaskError(f"failed unexpectedly: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _not_opened(tried: Tried[Candidate, Ready | Entry]) -> Entry:
    """The entry of what could not be opened, or of a source that could not be looked through."""
    error = tried.error if isinstance(tried.error, GaussmeterError) else unforeseen(tried.error or KeyError())
    if tried.item is None:
        return Entry(shown(error.file or "a source"), "", "failed", str(error))
    where = tried.item.uri
    return not_taken(full_path(where) if scheme_of(where) == "file" else where, error)


def not_taken(uri: str, error: GaussmeterError) -> Entry:
    """The entry of a place that cannot be taken in."""
    return Entry(shown(uri), "", "failed" if isinstance(error, TaskError) else "refused", str(error))
