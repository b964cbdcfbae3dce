"""One checkpoint from plan to rows: hand out tasks, fold, summarise."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from engine.errors import TaskError
from engine.execution.executor import Done
from engine.execution.fold import Fold, Partial
from engine.nouns.events import Ended, Listener, Planned, TaskDone
from engine.nouns.records import Checkpoint, Span
from engine.nouns.tasks import Outcome, Part, Task
from engine.plan import Limits, Plan, plan_refine
from engine.sketch import Sketch, combine, empty
from engine.statistics.refinement import Refinement, combine_refinements
from engine.statistics.summary import codes_to_refine, summarise
from engine.warehouse.ingest import Finished, write_partials, write_tensors
from engine.warehouse.journal import Journal
from engine.warehouse.rows import Connection
from engine.warehouse.subjects import Standing, finish, is_there

Counted = Outcome[Sketch | Refinement]
PlanSecond = Callable[[Mapping[int, tuple[int, ...]]], tuple[Task, ...]]


class ScanJob:
    """Scans what is missing of one subject. `Scribe` brings its rows into the warehouse.

    Args:
        checkpoint: what to scan.
        standing: what is there already.
        exact: whether 32-bit floats get a second pass.
        limits: for the plan of the second pass.
        listener: told what happens.
        journal: where every finished task is noted until it is in the warehouse.
        plan_second: makes the tasks of the second pass, from the codes to look into by ordinal; None has the
            checkpoint read again.

    Attributes:
        bins: how many wait to be written.
        has_news: whether it knows anything that is not in the warehouse.
        complete: whether everything is counted, so that the next writing is the last.
        over: whether everything is in the warehouse, or nothing more will be.
        nbytes_read: bytes that were read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        standing: Standing,
        *,
        exact: bool,
        limits: Limits,
        listener: Listener,
        journal: Journal,
        plan_second: PlanSecond | None = None,
    ) -> None:
        self.checkpoint, self.standing = checkpoint, standing
        self._exact, self._listener = exact, listener
        self._plan_second = plan_second or (lambda codes: plan_refine(checkpoint, codes, limits))
        self._elements = {i: t.elements for i, t in enumerate(checkpoint.tensors)}
        self._journal = journal
        self._fold = Fold(self._elements, combine, standing.partials)
        self._take_over(journal.recover(keep=standing.resumed))
        self._refined: Fold[Refinement] = Fold(self._elements, combine_refinements)
        self._awaiting: dict[int, Sketch] = {}  # read once, to be refined
        self._kept: set[int] = set()  # those of them that are in the warehouse
        self._finished: list[Finished] = []
        self._queue: deque[Task] = deque()
        self._under_way = 0
        self._first_pass = True
        self._removed = False
        self.bins = 0
        self.has_news = self.complete = self.over = False
        self.nbytes_read = 0

    def covered(self) -> dict[int, tuple[Span, ...]]:
        """Tell the plan which elements need no reading."""
        done = {i: ((0, self._elements[i]),) for i in self.standing.done}
        return done | {i: p.spans for i, p in self._fold.partials.items()}

    def _take_over(self, parts: Sequence[Part[Sketch]]) -> None:
        """Add what another process had noted, unless it had come into the warehouse as well."""
        for part in parts:
            known = self._fold.partials.get(part.tensor)
            start, stop = part.span
            if part.tensor in self.standing.done or any(
                start < b and a < stop for a, b in (known.spans if known else ())
            ):
                continue
            self._fold.partials[part.tensor] = self._fold.grow(known, part)

    def begin(self, plan: Plan, shared: Sequence[int] = ()) -> None:
        """Take up what is missing.

        Args:
            plan: made with `covered`.
            shared: bytes of each task that is not in the plan, because it is of other jobs too; somebody else
                runs them, and calls `add` for each.
        """
        name, nbytes = self.checkpoint.name, plan.nbytes + sum(shared)
        self._listener(Planned(name, len(plan.measured), len(plan.tasks) + len(shared), nbytes))
        self._under_way += len(shared)
        self._take_what_needs_no_reading(plan)
        self._queue.extend(plan.tasks)
        self._go_on()
        self.has_news = self.complete or bool(self._finished)

    def take(self) -> Task | None:
        """The next task in file order; None if there is none now."""
        if not self._queue:
            return None
        self._under_way += 1
        return self._queue.popleft()

    def add(self, ended: Done[Counted]) -> None:
        """Fold what a task found."""
        self._under_way -= 1
        self.has_news = True
        self.nbytes_read += ended.outcome.nbytes
        name, outcome = self.checkpoint.name, ended.outcome
        found = ((p, p.found) for p in outcome.parts)
        self._journal.add(Part(p.tensor, p.span, s) for p, s in found if isinstance(s, Sketch))
        self._listener(TaskDone(ended.task.key, outcome.nbytes, name, ended.worker, ended.seconds))
        for part in outcome.parts:
            if isinstance(part.found, Sketch):
                for ordinal, sketch in self._fold.add([Part(part.tensor, part.span, part.found)]):
                    self._whole(ordinal, sketch)
            else:
                for ordinal, refinement in self._refined.add([Part(part.tensor, part.span, part.found)]):
                    self._finish(ordinal, self._awaiting.pop(ordinal), refinement)
        self._go_on()

    def write(self, connection: Connection) -> None:
        """Write everything known, the rows of finished tensors and the state of the others."""
        subject_id = self.standing.subject_id
        self._removed = not is_there(connection, subject_id)
        if self._removed:
            return
        write_tensors(connection, subject_id, self._finished)
        write_partials(connection, subject_id, self._unfinished(), keep=self._kept)
        if self.complete:
            finish(connection, subject_id)

    def written(self) -> None:
        """What was written is safe.

        Raises:
            TaskError: it was not written, because the subject is no longer there.
        """
        number = self.standing.subject_id
        self._journal.clear()
        if self._removed:
            raise TaskError(f"subject {number} was removed by another process during the scan")
        self._finished, self.bins, self.has_news = [], 0, False
        self._kept |= self._awaiting.keys()
        if self.complete:
            self.end()

    def end(self) -> None:
        """There is nothing more to do, or nobody will do it."""
        self.over = True
        self.close()
        self._queue.clear()
        self._listener(Ended(self.checkpoint.name))

    def forget(self) -> None:
        """What was counted is not true any more."""
        self._journal.clear()

    def close(self) -> None:
        """Let go of the journal: what could not be written is there for the next scan."""
        self._journal.close()

    def _go_on(self) -> None:
        """Begin the second pass, when nothing is left of the first; and so on."""
        if self._queue or self._under_way:
            return
        if self._first_pass:
            self._first_pass = False
            self._begin_second_pass()
        self.complete = not self._queue

    def _begin_second_pass(self) -> None:
        codes = {i: codes_to_refine(sketch) for i, sketch in self._awaiting.items()}
        tasks = self._plan_second(codes)
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
        self.bins += len(sketch.codes)

    def _unfinished(self) -> Mapping[int, Partial[Sketch]]:
        new = self._awaiting.keys() - self._kept
        read_once = {i: Partial(((0, self._elements[i]),), self._awaiting[i]) for i in new}
        return self._fold.partials | read_once
