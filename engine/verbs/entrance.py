"""Who enters a census: opened, looked up, planned; and then begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from engine.errors import GaussmeterError
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.candidate import Candidate
from engine.nouns.events import Listener
from engine.nouns.records import Checkpoint
from engine.plan import Limits, Selection, plan_scan
from engine.storage import locate
from engine.verbs.census_feed import Entry, Ready, not_taken
from engine.verbs.scan_job import ScanJob
from engine.warehouse.journal import Journal
from engine.warehouse.known import Known
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, Standing, begin


@dataclass(frozen=True, slots=True)
class Budget:
    """What one checkpoint may take.

    Attributes:
        nbytes: a larger one is skipped; None for no limit.
        seconds: one that takes longer is stopped, and goes on in the next census; None for no limit.
    """

    nbytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for of every checkpoint.

    Attributes:
        selection: which tensors.
        exact: whether 32-bit floats get a second pass.
        iid: what is looked at beside the counts, as from `scan.depth`.
        force: whether to scan again what is known.
        spec: what of this decides what the rows say.
    """

    selection: Selection
    exact: bool
    iid: int | None
    force: bool
    spec: Spec


class Entrance:
    """Decides what becomes of a checkpoint before anything is read of it.

    Args:
        store: the warehouse.
        before: what it knew.
        options: what is asked for.
        budget: what each may take.
        limits: for the plans.
        listener: told what happens.
    """

    def __init__(
        self,
        store: Warehouse,
        before: Known,
        options: Options,
        budget: Budget,
        limits: Limits,
        listener: Listener,
    ) -> None:
        self._store, self._before, self._options = store, before, options
        self._budget, self._limits, self._listener = budget, limits, listener
        self._places: set[str] = set()
        self._lock = Lock()

    def open(self, candidate: Candidate) -> Ready | Entry:
        """Open a checkpoint, on any thread.

        Returns:
            it, or what is to be said of it: skipped, unchanged, or refused.

        Raises:
            GaussmeterError: there is nothing, or the store does not answer.
        """
        if candidate.failed is not None:
            raise candidate.failed
        if candidate.skipped is not None:
            return Entry(candidate.uri, "", "skipped", candidate.skipped)
        if (over := self._over_budget(candidate.nbytes)) is not None:
            return Entry(candidate.uri, "", "skipped", over, nbytes=candidate.nbytes or 0)
        place = locate(candidate.uri)
        same = self._before.commits.get((place.uri, place.revision))
        if same is not None and not self._options.force:
            return self._again(candidate, place.uri) or Entry(
                place.uri, same[1], "unchanged", subject_id=same[0]
            )
        try:
            checkpoint = open_checkpoint(candidate.uri, place)
        except GaussmeterError as error:  # noted under the place that it will have when it is taken in
            return self._again(candidate, place.uri) or not_taken(place.uri, error)
        return self._again(candidate, checkpoint.uri) or self._judge(candidate, checkpoint)

    def begin(self, opened: Sequence[Ready]) -> list[ScanJob]:
        """Enter checkpoints in the warehouse, in one transaction, and begin to scan them."""
        wanted: Any = {k: getattr(self._options, k) for k in ("spec", "force", "iid")}
        with self._store.writing() as connection:
            found = [begin(connection, r.checkpoint, name=r.name, **wanted) for r in opened]
        return [self._job(ready, standing) for ready, standing in zip(opened, found, strict=True)]

    def _job(self, ready: Ready, standing: Standing) -> ScanJob:
        checkpoint, exact, iid = ready.checkpoint, self._options.exact, self._options.iid
        job = ScanJob(
            checkpoint,
            standing,
            exact=exact,
            iid=iid,
            limits=self._limits,
            listener=self._listener,
            journal=Journal(self._store.path, checkpoint),
        )
        plan, covered = ready.plan, job.covered()
        if covered:
            plan = plan_scan(checkpoint, self._options.selection, self._limits, covered, iid=iid)
        job.begin(plan)
        return job

    def _again(self, candidate: Candidate, uri: str) -> Entry | None:
        """Say so if a place was met before, under whatever name."""
        with self._lock:
            if uri in self._places:
                return Entry(candidate.uri, "", "skipped", f"is {uri}, which was met before")
            self._places.add(uri)
        return None

    def _judge(self, candidate: Candidate, checkpoint: Checkpoint) -> Ready | Entry:
        uri, fingerprint, nbytes = checkpoint.uri, checkpoint.fingerprint, checkpoint.nbytes
        if not self._options.force:
            if (same := self._before.complete.get((uri, fingerprint))) is not None:
                return Entry(uri, same[1], "unchanged", "", fingerprint, same[0], nbytes)
            if (reason := self._before.refused.get((uri, fingerprint))) is not None:
                return Entry(uri, "", "refused", reason, fingerprint, None, nbytes)
        if (over := self._over_budget(nbytes)) is not None:
            return Entry(uri, "", "skipped", over, fingerprint, None, nbytes)
        wanted = self._options
        try:
            require_sound(checkpoint)
            plan = plan_scan(
                checkpoint, wanted.selection, self._limits, {}, exact=wanted.exact, iid=wanted.iid
            )
        except GaussmeterError as error:
            return not_taken(uri, error)
        return Ready(checkpoint, plan, candidate.name or checkpoint.name)

    def _over_budget(self, nbytes: int | None) -> str | None:
        most = self._budget.nbytes
        if most is None or nbytes is None or nbytes <= most:
            return None
        return f"has {nbytes:,} bytes, more than the budget of {most:,}"
