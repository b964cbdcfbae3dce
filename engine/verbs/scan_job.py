"""One checkpoint from plan to finished subject: run, fold, summarise, write."""

from __future__ import annotations

import time
from collections.abc import Mapping

from engine.errors import FormatError, TaskError
from engine.execution.executor import Executor
from engine.execution.fold import Fold, Partial
from engine.nouns.events import Ended, Listener, Planned, TaskDone
from engine.nouns.records import Checkpoint, Span
from engine.plan import Limits, Plan, plan_refine
from engine.sketch import Sketch, combine, empty
from engine.statistics.refinement import Refinement, combine_refinements
from engine.statistics.summary import codes_to_refine, summarise
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody
from engine.warehouse.ingest import Finished, write_partials, write_tensors
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Standing, discard, finish, is_there

FLUSH_SECONDS = 2.0
"""A crash costs at most the work of this long, and of the tasks that were running."""
FLUSH_BINS = 1_000_000
"""Finished tensors wait in memory until their bins are this many, at the most."""


class ScanJob:
    """Scans what is missing of one subject.

    Args:
        checkpoint: what to scan.
        store: where the rows go.
        standing: what is there already.
        executor: who runs the tasks.
        exact: whether 32-bit floats get a second pass.
        listener: told what happens.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        store: Warehouse,
        standing: Standing,
        executor: Executor,
        *,
        exact: bool,
        listener: Listener,
    ) -> None:
        self._checkpoint, self._store, self._standing = checkpoint, store, standing
        self._executor, self._exact, self._listener = executor, exact, listener
        self._elements = {i: t.elements for i, t in enumerate(checkpoint.tensors)}
        self._fold = Fold(self._elements, combine, standing.partials)
        self._awaiting: dict[int, Sketch] = {}  # read once, to be refined
        self._kept: set[int] = set()  # those of them that are in the warehouse
        self._finished: list[Finished] = []
        self._flushed = time.monotonic()
        self._nbytes_read = 0

    def covered(self) -> dict[int, tuple[Span, ...]]:
        """Tell the plan which elements need no reading."""
        done = {i: ((0, self._elements[i]),) for i in self._standing.done}
        return done | {i: p.spans for i, p in self._standing.partials.items()}

    def run(self, plan: Plan, limits: Limits) -> int:
        """Do what is missing.

        Args:
            plan: made with `covered`.
            limits: for the plan of the second pass.

        Returns:
            how many bytes were read.

        Raises:
            FormatError: the files changed meanwhile; the subject was discarded.
            TaskError: something failed; what was done is kept for the next scan.
        """
        name = self._checkpoint.name
        self._listener(Planned(name, len(plan.measured), len(plan.tasks), plan.nbytes))
        try:
            self._take_what_needs_no_reading(plan)
            self._first_pass(plan)
            self._second_pass(limits)
            self._flush(last=True)
        except FormatError:
            with self._store.writing() as connection:
                discard(connection, self._standing.subject_id)
            raise
        except (TaskError, KeyboardInterrupt):
            self._flush()
            raise
        finally:
            self._listener(Ended(name))
        return self._nbytes_read

    def _take_what_needs_no_reading(self, plan: Plan) -> None:
        missing = [i for i in (*plan.listed, *plan.measured) if i not in self._standing.done]
        for ordinal in missing:
            info = self._checkpoint.tensors[ordinal]
            partial = self._fold.partials.get(ordinal)
            if info.coding is None:
                self._finished.append(Finished(ordinal, info))
            elif info.elements == 0:
                self._finish(ordinal, empty(info.coding.name))
            elif partial is not None and partial.covered == info.elements:
                self._whole(ordinal, self._fold.partials.pop(ordinal).found)

    def _first_pass(self, plan: Plan) -> None:
        for outcome in self._executor.run(ScanBody, plan.tasks):
            self._count(outcome.key, outcome.nbytes)
            for ordinal, sketch in self._fold.add(outcome.parts):
                self._whole(ordinal, sketch)
            self._flush_if_due()

    def _second_pass(self, limits: Limits) -> None:
        codes = {i: codes_to_refine(sketch) for i, sketch in self._awaiting.items()}
        tasks = plan_refine(self._checkpoint, codes, limits)
        if not tasks:
            return
        nbytes = sum(t.nbytes for t in tasks)
        self._listener(Planned(f"{self._checkpoint.name}, second pass", len(codes), len(tasks), nbytes))
        fold: Fold[Refinement] = Fold(self._elements, combine_refinements)
        for outcome in self._executor.run(RefineBody, tasks):
            self._count(outcome.key, outcome.nbytes)
            for ordinal, refinement in fold.add(outcome.parts):
                self._finish(ordinal, self._awaiting.pop(ordinal), refinement)
            self._flush_if_due()

    def _count(self, key: int, nbytes: int) -> None:
        self._nbytes_read += nbytes
        self._listener(TaskDone(key, nbytes))

    def _whole(self, ordinal: int, sketch: Sketch) -> None:
        if self._exact and sketch.low_sum is not None and len(sketch.codes):
            self._awaiting[ordinal] = sketch
        else:
            self._finish(ordinal, sketch)

    def _finish(self, ordinal: int, sketch: Sketch, refinement: Refinement | None = None) -> None:
        info = self._checkpoint.tensors[ordinal]
        self._finished.append(Finished(ordinal, info, sketch, summarise(sketch, refinement)))

    def _flush_if_due(self) -> None:
        bins = sum(len(f.sketch.codes) for f in self._finished if f.sketch is not None)
        if time.monotonic() - self._flushed > FLUSH_SECONDS or bins > FLUSH_BINS:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        """Write everything known, the rows of finished tensors and the state of the others, at once."""
        subject_id = self._standing.subject_id
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
