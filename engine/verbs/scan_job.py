"""One checkpoint from plan to rows: hand out tasks, fold, summarise."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engine.errors import ConfigError, TaskError
from engine.execution.executor import Done
from engine.execution.fold import Fold, Partial
from engine.nouns.events import Ended, Listener, Placed, Planned, TaskDone
from engine.nouns.matrices import as_matrix, measured_matrix, spectrum_matrix, why_unmeasured
from engine.nouns.records import Checkpoint, Span, TensorInfo
from engine.nouns.tasks import Outcome, Part, Task
from engine.plan import Limits, Plan, plan_refine, plan_spectra
from engine.sketch import Sketch, combine, empty
from engine.statistics.distribution import distribution
from engine.statistics.iid import Iid, judge
from engine.statistics.refinement import Refinement, combine_refinements
from engine.statistics.spectrum import Spectrum
from engine.statistics.summary import Summary, codes_to_refine, summarise
from engine.warehouse.ingest import Finished, write_partials, write_spectra, write_tensors
from engine.warehouse.journal import Journal
from engine.warehouse.rows import Connection
from engine.warehouse.subjects import Standing, finish, is_there

Found = Sketch | Refinement | Spectrum
Counted = Outcome[Found]
PlanSecond = Callable[[Mapping[int, tuple[int, ...]]], tuple[Task, ...]]


def depth(*, iid: bool, spectrum: int) -> int | None:
    """What is looked at beside the counts, as one number.

    Returns:
        None for nothing; else the largest smaller side of matrices whose singular values are looked at too,
        beside rows, columns and neighbours; 0 for none.

    Raises:
        ConfigError: a side that makes no sense.
    """
    if spectrum < 0:
        raise ConfigError(f"the largest side of a spectrum is not negative, as {spectrum} is")
    return spectrum if iid or spectrum else None


def status_of(standing: Standing) -> str:
    """What a scan that is complete did, by what was there before it."""
    if standing.complete:
        return "unchanged"
    return "added" if standing.added else "resumed" if standing.resumed else "scanned"


class ScanJob:
    """Scans what is missing of one subject. `Scribe` brings its rows into the warehouse.

    Args:
        checkpoint: what to scan.
        standing: what is there already.
        exact: whether 32-bit floats get a second pass.
        iid: None if rows and columns are not measured; else the largest smaller side of matrices whose
            singular values are looked at too, 0 for none.
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
        iid: int | None = None,
    ) -> None:
        self.checkpoint, self.standing = checkpoint, standing
        self._exact, self._iid, self._listener, self._limits = exact, iid, listener, limits
        self._plan_second = plan_second or (lambda codes: plan_refine(checkpoint, codes, limits))
        self._elements = {i: t.elements for i, t in enumerate(checkpoint.tensors)}
        self._journal = journal
        self._fold = Fold(self._elements, combine, standing.partials)
        self._take_over(journal.recover(keep=standing.resumed))
        self._refined: Fold[Refinement] = Fold(self._elements, combine_refinements)
        self._awaiting: dict[int, Sketch] = {}  # read once, to be refined
        self._kept: set[int] = set()  # those of them that are in the warehouse
        self._finished: list[Finished] = []
        self._spectral: list[int] = []  # whose singular values are wanted
        self._spectra: dict[int, Spectrum] = {}
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
            if (
                part.tensor in self.standing.done
                or self._lacks_bands(part)
                or any(start < b and a < stop for a, b in (known.spans if known else ()))
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
        if self._iid:
            missing = (i for i in plan.measured if i not in self.standing.spectra)
            self._spectral = [i for i in missing if self._has_spectrum(i)]
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
        for note in outcome.notes:
            self._listener(Placed(ended.worker, note))
        self._listener(TaskDone(ended.task.key, outcome.nbytes, name, ended.worker, ended.seconds))
        for part in outcome.parts:
            if isinstance(part.found, Sketch):
                for ordinal, sketch in self._fold.add([Part(part.tensor, part.span, part.found)]):
                    self._whole(ordinal, sketch)
            elif isinstance(part.found, Spectrum):
                self._spectra[part.tensor] = part.found
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
        ready = {i: found for i, found in self._spectra.items() if i not in self._awaiting}
        write_spectra(connection, subject_id, ready)
        write_partials(connection, subject_id, self._unfinished(), keep=self._kept)
        if self.complete:
            finish(connection, subject_id, self._iid)

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
        self._spectra = {i: found for i, found in self._spectra.items() if i in self._awaiting}
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
        tasks = (*self._plan_second(codes), *plan_spectra(self.checkpoint, self._spectral, self._limits))
        if tasks:
            nbytes, tensors = sum(t.nbytes for t in tasks), len(codes.keys() | set(self._spectral))
            self._listener(Planned(f"{self.checkpoint.name}, second pass", tensors, len(tasks), nbytes))
            self._queue.extend(replace(t, key=key) for key, t in enumerate(tasks))

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
        info, summary = self.checkpoint.tensors[ordinal], summarise(sketch, refinement)
        iid = None if self._iid is None else _judged(info, sketch, summary)
        self._finished.append(Finished(ordinal, info, replace(sketch, bands=None), summary, iid))
        self.bins += len(sketch.codes)

    def _has_spectrum(self, ordinal: int) -> bool:
        return spectrum_matrix(self.checkpoint.tensors[ordinal], self._iid or 0) is not None

    def _lacks_bands(self, part: Part[Sketch]) -> bool:
        wanted = self._iid is not None and measured_matrix(self.checkpoint.tensors[part.tensor]) is not None
        return wanted and part.found.bands is None

    def _unfinished(self) -> Mapping[int, Partial[Sketch]]:
        new = self._awaiting.keys() - self._kept
        read_once = {i: Partial(((0, self._elements[i]),), self._awaiting[i]) for i in new}
        return self._fold.partials | read_once


def _judged(info: TensorInfo, sketch: Sketch, summary: Summary) -> Iid:
    """What is said of the rows and columns of a tensor."""
    reason = why_unmeasured(info)
    if reason is None and sketch.bands is not None:
        return judge(sketch.bands, distribution(sketch), summary.moments)
    matrix = as_matrix(info.shape)
    return Iid((matrix.rows, matrix.columns) if matrix else None, reason=reason)
