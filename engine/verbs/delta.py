"""`delta`: what tuning has changed: the differences of checkpoints, counted like weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import ConfigError, TaskError
from engine.execution.choose import choose_executor
from engine.execution.drive import drive
from engine.execution.executor import Executor
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.defaults import RANGES, WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.records import Checkpoint, TensorInfo
from engine.plan import BLOCK_BYTES, Limits, Selection
from engine.plan.delta import plan_delta
from engine.plan.pairing import Pairing, pair
from engine.tasks.count import CountBody
from engine.verbs.limits import limits_of
from engine.verbs.scan_job import ScanJob
from engine.verbs.scribe import Scribe
from engine.verbs.shared_feed import SharedFeed, shared_bytes
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, Standing, begin, find_complete


@dataclass(frozen=True, slots=True)
class Derived:
    """What became of one difference.

    Attributes:
        subject_id: its number in the warehouse.
        name: its name there.
        uri: what was measured against the base.
        status: `scanned`, `resumed` (an interrupted run was completed) or `unchanged` (nothing was read).
        tensors: its rows, those that only say why something was not compared among them.
        left_out: those, as (name, reason).
    """

    subject_id: int
    name: str
    uri: str
    status: str
    tensors: int
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """What a delta did.

    Attributes:
        base: what was subtracted.
        subjects: one for each tuned checkpoint or adapter, in their order.
        nbytes_read: bytes that were read, of all checkpoints together.
        seconds: how long it took.
    """

    base: str
    subjects: tuple[Derived, ...]
    nbytes_read: int
    seconds: float

    @property
    def subject_id(self) -> int:
        """Number of the first subject."""
        return self.subjects[0].subject_id

    @property
    def name(self) -> str:
        """Name of the first subject."""
        return self.subjects[0].name

    @property
    def status(self) -> str:
        """What became of the first subject."""
        return self.subjects[0].status


def delta(
    base: str | Path,
    *tuned: str | Path,
    warehouse: str | Path = WAREHOUSE,
    name: str | None = None,
    strict: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    executor: Executor | None = None,
    exact: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    force: bool = False,
    task_bytes: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
    listener: Listener = ignore,
) -> DeltaReport:
    """Count the differences tuned - base, in float32, as a subject for each tuned checkpoint.

    All are read in lockstep, the base once, from any stores and formats; no difference is ever whole in
    memory or on disk. Tensors are matched by name, known wrappers stripped. What cannot be compared has a row
    that says why; of an embedding that has grown, the rows that both have are compared.

    Args:
        base: the checkpoint that was tuned.
        tuned: what came of it; one or more.
        warehouse: the DuckDB file, made when missing.
        name: the subject's name, of a single tuned checkpoint.
        strict: refuse to go on if anything cannot be compared.
        workers: as for `engine.scan`.
        ray: likewise.
        executor: likewise.
        exact: read everything a second time, so that filters and quantiles are exact too.
        include: shell patterns on the base's names.
        exclude: likewise.
        force: count again even when nothing has changed.
        task_bytes: about how many bytes a task reads, of all checkpoints together.
        block_bytes: as for `engine.scan`.
        memory_bytes: refuse the plan if it may take more.
        ranges: how many requests at once read distant checkpoints.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        FormatError: a tuned checkpoint does not belong to the base; or a file is damaged.
        ConfigError, BudgetError, TaskError, WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    if not tuned:
        raise ConfigError("a delta needs a base and at least one tuned checkpoint")
    if name is not None and len(tuned) > 1:
        raise ConfigError(f"a name is that of one difference, but {len(tuned)} checkpoints were given")
    first = _opened(base)
    selection = Selection(tuple(include), tuple(exclude))
    pairings = [pair(first, _opened(uri), selection, strict=strict) for uri in tuned]
    _require_distinct(pairings)
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(ray, workers, listener=listener))
        limits = limits_of(
            executor,
            task_bytes=task_bytes,
            block_bytes=block_bytes,
            memory_bytes=memory_bytes,
            ranges=ranges,
        )
        plan_delta(pairings, limits, exact=exact)  # refuses before the warehouse hears of it
        run = _Run(pairings, Warehouse(warehouse, listener=listener), limits, listener, exact=exact)
        standings = run.enter(asdict(selection), name, force=force)
        nbytes = run.count(executor, standings)
    subjects = tuple(_derived(p, s) for p, s in zip(pairings, standings, strict=True))
    return DeltaReport(first.uri, subjects, nbytes, time.monotonic() - began)


def _opened(uri: str | Path) -> Checkpoint:
    checkpoint = open_checkpoint(str(uri))
    require_sound(checkpoint)
    return checkpoint


def _require_distinct(pairings: Sequence[Pairing]) -> None:
    seen: set[str] = set()
    for pairing in pairings:
        if pairing.inventory.fingerprint in seen:
            raise ConfigError("is given twice", file=pairing.tuned.uri)
        seen.add(pairing.inventory.fingerprint)


class _Run:
    """The subjects of one base, from their entry in the warehouse to their last rows."""

    def __init__(
        self,
        pairings: Sequence[Pairing],
        store: Warehouse,
        limits: Limits,
        listener: Listener,
        *,
        exact: bool,
    ) -> None:
        self._pairings, self._store, self._limits = pairings, store, limits
        self._listener, self._exact = listener, exact

    def enter(self, selection: Spec, name: str | None, *, force: bool) -> list[Standing]:
        """Find or enter every subject, in one transaction."""
        with self._store.writing() as connection:
            return [self._enter(connection, p, selection, name, force=force) for p in self._pairings]

    def _enter(
        self, connection: Connection, pairing: Pairing, selection: Spec, name: str | None, *, force: bool
    ) -> Standing:
        base, tuned = pairing.base, pairing.tuned
        spec = {"base": base.uri, "tuned": tuned.uri, **selection, "exact": self._exact}
        spec |= {"base_revision": base.revision, "tuned_revision": tuned.revision}
        parents = [n for c in (base, tuned) if (n := find_complete(connection, c)) is not None]
        return begin(
            connection,
            pairing.inventory,
            name=name or pairing.inventory.name,
            spec=spec,
            force=force,
            kind="delta",
            parents=parents,
        )

    def count(self, executor: Executor, standings: Sequence[Standing]) -> int:
        """Count what is missing; the bytes that were read."""
        missing = [(p, s) for p, s in zip(self._pairings, standings, strict=True) if not s.complete]
        if not missing:
            return 0
        pairings = [p for p, _ in missing]
        jobs = [self._job(p, s) for p, s in missing]
        plan = plan_delta(pairings, self._limits, [job.covered() for job in jobs], exact=self._exact)
        shares = [shared_bytes(task, plan.offsets) for task in plan.tasks]
        for number, job in enumerate(jobs):
            job.begin(plan.plans[number], [own[number] for own in shares if number in own])
        feed = SharedFeed(jobs, plan.offsets, plan.tasks, Scribe(self._store, self._listener))
        if not feed.ended():
            try:
                with executor.open(CountBody) as pool:
                    drive(pool, feed)
            except (TaskError, KeyboardInterrupt) as error:
                feed.stop(error)
                raise
        return sum(job.nbytes_read for job in jobs)

    def _job(self, pairing: Pairing, standing: Standing) -> ScanJob:
        return ScanJob(
            pairing.inventory,
            standing,
            exact=self._exact,
            limits=self._limits,
            listener=self._listener,
            plan_second=lambda codes: plan_delta([pairing], self._limits, refine=codes).tasks,
        )


def _derived(pairing: Pairing, standing: Standing) -> Derived:
    status = "unchanged" if standing.complete else "resumed" if standing.resumed else "scanned"
    left_out = tuple((t.name, _reason(t)) for t in pairing.unmatched)
    rows = len(pairing.inventory.tensors)
    return Derived(standing.subject_id, standing.name, pairing.tuned.uri, status, rows, left_out)


def _reason(tensor: TensorInfo) -> str:
    return tensor.why or ""
