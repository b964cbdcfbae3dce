"""One checkpoint from plan to finished subject: hand out tasks, fold, summarise, write."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from engine.errors import FormatError, TaskError
from engine.execution.executor import Done, Failed
from engine.execution.fold import Fold, Partial
from engine.nouns.events import Ended, Listener, Planned, TaskDone, TaskFailed
from engine.nouns.records import Checkpoint, Outcome, Span, Task
from engine.plan import Limits, Plan, plan_refine
from engine.sketch import Sketch, combine, empty
from engine.statistics.refinement import Refinement, combine_refinements
from engine.statistics.summary import codes_to_refine, summarise
from engine.warehouse.ingest import Finished, write_partials, write_tensors
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Standing, discard, finish, is_there

FLUSH_SECONDS = 2.0
"""A crash costs at most the work of this long, and of the tasks that were running."""
FLUSH_BINS = 1_000_000
"""Finished tensors wait in memory until their bins are this many, at the most."""

Counted = Outcome[Sketch] | Outcome[Refinement]


class ScanJob:
    """Scans what is missing of one subject; a feed for `engine.execution.drive`.

    Args:
        checkpoint: what to scan.
        store: where the rows go.
        standing: what is there already.
        exact: whether 32-bit floats get a second pass.
        limits: for the plan of the second pass.
        listener: told what happens.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        store: Warehouse,
        standing: Standing,
        *,
        exact: bool,
        limits: Limits,
        listener: Listener,
    ) -> None:
        self.checkpoint, self._store, self.standing = checkpoint, store, standing
        self._exact, self._limits, self._listener = exact, limits, listener
        self._elements = {i: t.elements for i, t in enumerate(checkpoint.tensors)}
        self._fold = Fold(self._elements, combine, standing.partials)
        self._refined: Fold[Refinement] = Fold(self._elements, combine_refinements)
        self._awaiting: dict[int, Sketch] = {}  # read once, to be refined
        self._kept: set[int] = set()  # those of them that are in the warehouse
        self._finished: list[Finished] = []
        self._flushed = time.monotonic()
        self._queue: deque[Task] = deque()
        self._under_way = 0
        self._first_pass = True
        self._over = False
        self.nbytes_read = 0

    def covered(self) -> dict[int, tuple[Span, ...]]:
        """Tell the plan which elements need no reading."""
        done = {i: ((0, self._elements[i]),) for i in self.standing.done}
        return done | {i: p.spans for i, p in self.standing.partials.items()}

    def begin(self, plan: Plan) -> None:
        """Take up what is missing.

        Args:
            plan: made with `covered`.
        """
        name = self.checkpoint.name
        self._listener(Planned(name, len(plan.measured), len(plan.tasks), plan.nbytes))
        self._take_what_needs_no_reading(plan)
        self._queue.extend(plan.tasks)
        self._go_on()

    def take(self) -> Task | None:
        """Hand out the next task in file order; see `Feed`."""
        if not self._queue:
            return None
        self._under_way += 1
        return self._queue.popleft()

    def ended(self) -> bool:
        """Whether everything is in the warehouse, or nothing more will be; see `Feed`."""
        return self._over

    def wait(self, seconds: float) -> None:
        """Never called: while a job has not ended, some task of it is under way; see `Feed`."""
        raise AssertionError("a job has no task, and none under way")

    def add(self, ended: Done[Counted] | Failed) -> None:
        """Fold what a task found; see `Feed`.

        Raises:
            FormatError: the files changed meanwhile; the subject was discarded.
            TaskError: something failed; what was done is kept for the next scan.
        """
        if isinstance(ended, Failed):
            self._listener(TaskFailed(ended.task.key, self.checkpoint.name, str(ended.error)))
            self.stop(ended.error)
            raise ended.error
        self._under_way -= 1
        self.nbytes_read += ended.outcome.nbytes
        name, outcome = self.checkpoint.name, ended.outcome
        self._listener(TaskDone(ended.task.key, outcome.nbytes, name, ended.worker, ended.seconds))
        for part in outcome.parts:
            if isinstance(part.found, Sketch):
                for ordinal, sketch in self._fold.add([part]):
                    self._whole(ordinal, sketch)
            else:
                for ordinal, refinement in self._refined.add([part]):
                    self._finish(ordinal, self._awaiting.pop(ordinal), refinement)
        self._flush_if_due()
        self._go_on()

    def stop(self, error: BaseException) -> None:
        """End before the end: keep what is known, unless it is of files that are no longer there."""
        self._over = True
        self._queue.clear()
        try:
            if isinstance(error, FormatError):
                with self._store.writing() as connection:
                    discard(connection, self.standing.subject_id)
            elif isinstance(error, (TaskError, KeyboardInterrupt)):
                self._flush()
        finally:
            self._listener(Ended(self.checkpoint.name))

    def _go_on(self) -> None:
        """Begin the second pass, or end, when nothing is left of what was begun."""
        if self._queue or self._under_way:
            return
        if self._first_pass:
            self._first_pass = False
            self._begin_second_pass()
        if not self._queue:
            self._over = True
            try:
                self._flush(last=True)
            finally:
                self._listener(Ended(self.checkpoint.name))

    def _begin_second_pass(self) -> None:
        codes = {i: codes_to_refine(sketch) for i, sketch in self._awaiting.items()}
        tasks = plan_refine(self.checkpoint, codes, self._limits)
        if tasks:
            nbytes = sum(t.nbytes for t in tasks)
            self._listener(Planned(f"{self.checkpoint.name}, second pass", len(codes), len(tasks), nbytes))
            self._queue.extend(tasks)

    def _take_what_needs_no_reading(self, plan: Plan) -> None:
        missing = [i for i in (*plan.listed, *plan.measured) if i not in self.standing.done]
        for ordinal in missing:
            info = self.checkpoint.tensors[ordinal]
            partial = self._fold.partials.get(ordinal)
            if info.coding is None:
                self._finished.append(Finished(ordinal, info))
            elif info.elements == 0:
                self._finish(ordinal, empty(info.coding.name))
            elif partial is not None and partial.covered == info.elements:
                self._whole(ordinal, self._fold.partials.pop(ordinal).found)

    def _whole(self, ordinal: int, sketch: Sketch) -> None:
        if self._exact and sketch.low_sum is not None and len(sketch.codes):
            self._awaiting[ordinal] = sketch
        else:
            self._finish(ordinal, sketch)

    def _finish(self, ordinal: int, sketch: Sketch, refinement: Refinement | None = None) -> None:
        info = self.checkpoint.tensors[ordinal]
        self._finished.append(Finished(ordinal, info, sketch, summarise(sketch, refinement)))

    def _flush_if_due(self) -> None:
        bins = sum(len(f.sketch.codes) for f in self._finished if f.sketch is not None)
        if time.monotonic() - self._flushed > FLUSH_SECONDS or bins > FLUSH_BINS:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        """Write everything known, the rows of finished tensors and the state of the others, at once."""
        subject_id = self.standing.subject_id
        with self._store.writing() as connection:
            if not is_there(connection, subject_id):
                message = f"subject {subject_id} was removed by another process during the scan"
                raise TaskError(message, file=str(self._store.path))
            write_tensors(connection, subject_id, self._finished)
            write_partials(connection, subject_id, self._unfinished(), keep=self._kept)
            if last:
                finish(connection, subject_id)
        self._finished = []
        self._kept |= self._awaiting.keys()
        self._flushed = time.monotonic()

    def _unfinished(self) -> Mapping[int, Partial[Sketch]]:
        new = self._awaiting.keys() - self._kept
        read_once = {i: Partial(((0, self._elements[i]),), self._awaiting[i]) for i in new}
        return self._fold.partials | read_once
