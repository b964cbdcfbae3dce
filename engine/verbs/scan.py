"""`scan`: count every value of a checkpoint and keep the counts in the warehouse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from engine.errors import TaskError
from engine.execution.choose import choose_executor
from engine.execution.drive import drive
from engine.execution.executor import Done, Executor, Failed
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.defaults import RANGES, WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Task
from engine.plan import BLOCK_BYTES, Limits, Plan, Selection, plan_scan
from engine.tasks.count import CountBody
from engine.verbs.limits import limits_of
from engine.verbs.scan_job import Counted, ScanJob, depth, status_of
from engine.verbs.scribe import Scribe
from engine.warehouse.journal import Journal
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import begin

EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan did.

    Attributes:
        subject_id: its number in the warehouse.
        name: its name there.
        uri: what was scanned.
        status: `scanned`, `resumed` (an interrupted scan was completed), `added` (what was asked for in
            addition was added to an earlier scan) or `unchanged` (nothing was read).
        tensors: tensors in the warehouse, those only listed with a reason among them.
        listed: tensors that are not counted.
        nbytes: bytes of the checkpoint's tensors.
        nbytes_read: bytes that this scan read.
        seconds: how long it took.
    """

    subject_id: int
    name: str
    uri: str
    status: str
    tensors: int
    listed: int
    nbytes: int
    nbytes_read: int
    seconds: float


def scan(
    uri: str | Path,
    *,
    warehouse: str | Path = WAREHOUSE,
    name: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    device: str = "auto",
    executor: Executor | None = None,
    exact: bool = False,
    iid: bool = False,
    spectrum: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    force: bool = False,
    task_bytes: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
    listener: Listener = ignore,
) -> ScanReport:
    """Scan a checkpoint into the warehouse.

    An interrupted scan is taken up where it stopped; a checkpoint that is in already, unchanged, is not
    read again. The counts do not depend on workers, task or block size.

    Args:
        uri: a checkpoint's place; see `engine.formats.checkpoint.open_checkpoint`.
        warehouse: the DuckDB file, made when missing.
        name: the subject's name; by default taken from the place.
        workers: threads, or actors of Ray; by default one per core, or per GPU of a cluster that has some.
        ray: the Ray cluster that does it: `local` for a private one, `auto`, or an address.
        device: where each worker counts: `cpu`, `cuda`, or `auto`, which takes a GPU that the worker sees for
            16 GB or more.
        executor: who does it, in place of `workers`, `ray` and `device`; stays open.
        exact: read 32-bit floats a second time, so that filters and quantiles of them are exact too.
        iid: look at rows, columns and neighbours too. A checkpoint that was scanned without is read again,
            and what is new is added to its subject.
        spectrum: look at singular values too, of matrices whose smaller side is at most this; 0 for none.
        include: shell patterns; only tensors whose name matches one are scanned.
        exclude: shell patterns; tensors whose name matches one are not scanned.
        force: scan again even when nothing has changed.
        task_bytes: about how many bytes a task reads.
        block_bytes: how many bytes one read asks for, a multiple of 8.
        memory_bytes: refuse the plan if it may take more.
        ranges: how many requests at once read a distant checkpoint.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        ConfigError, FormatError, BudgetError, TaskError, WarehouseError: see `engine.errors`.
    """
    checkpoint = open_checkpoint(str(uri))
    require_sound(checkpoint)
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(ray, workers, device=device, listener=listener))
        limits = limits_of(
            executor,
            task_bytes=task_bytes,
            block_bytes=block_bytes,
            memory_bytes=memory_bytes,
            ranges=ranges,
            nbytes=checkpoint.nbytes,
        )
        return scan_checkpoint(
            checkpoint,
            Warehouse(warehouse, listener=listener),
            executor,
            limits,
            name=name,
            exact=exact,
            iid=depth(iid=iid, spectrum=spectrum),
            selection=Selection(tuple(include), tuple(exclude)),
            force=force,
            listener=listener,
        )


def scan_checkpoint(
    checkpoint: Checkpoint,
    store: Warehouse,
    executor: Executor,
    limits: Limits,
    *,
    name: str | None = None,
    exact: bool = False,
    iid: int | None = None,
    selection: Selection = EVERYTHING,
    force: bool = False,
    listener: Listener = ignore,
) -> ScanReport:
    """Scan a checkpoint whose headers were read before; `iid` as from `depth`, and otherwise as `scan`."""
    began = time.monotonic()
    planned = partial(plan_scan, checkpoint, selection, limits, exact=exact, iid=iid)
    plan = planned({})  # refuses before the warehouse hears of it
    spec = {**asdict(selection), "exact": exact}
    with store.writing() as connection:
        standing = begin(
            connection, checkpoint, name=name or checkpoint.name, spec=spec, force=force, iid=iid
        )
    nbytes_read = 0
    if not standing.complete:
        journal = Journal(store.path, checkpoint)
        job = ScanJob(
            checkpoint, standing, exact=exact, iid=iid, limits=limits, listener=listener, journal=journal
        )
        plan = planned(job.covered())
        _run(job, plan, executor, Scribe(store, listener), limits.device)
        nbytes_read = job.nbytes_read
    return ScanReport(
        subject_id=standing.subject_id,
        name=standing.name,
        uri=checkpoint.uri,
        status=status_of(standing),
        tensors=len(plan.measured) + len(plan.listed),
        listed=len(plan.listed),
        nbytes=checkpoint.nbytes,
        nbytes_read=nbytes_read,
        seconds=time.monotonic() - began,
    )


def _run(job: ScanJob, plan: Plan, executor: Executor, scribe: Scribe, device: str) -> None:
    job.begin(plan)
    feed = _Alone(job, scribe)
    if feed.ended():
        return
    try:
        with executor.open(partial(CountBody, device)) as pool:
            drive(pool, feed)
    except (TaskError, KeyboardInterrupt) as error:
        if not job.over:
            scribe.stop(job, error)
        raise
    finally:
        job.close()


class _Alone:
    """The feed of one job; see `engine.execution.drive.Feed`."""

    def __init__(self, job: ScanJob, scribe: Scribe) -> None:
        self._job, self._scribe = job, scribe
        if job.complete:
            self._write()

    def take(self) -> Task | None:
        return self._job.take()

    def add(self, ended: Done[Counted] | Failed) -> None:
        if isinstance(ended, Failed):
            self._scribe.fail(self._job, ended)
            raise ended.error
        self._job.add(ended)
        if self._job.complete or self._scribe.is_due([self._job]):
            self._write()

    def ended(self) -> bool:
        return self._job.over

    def wait(self, seconds: float) -> None:
        raise AssertionError("a job that is not over has a task, or one under way")

    def _write(self) -> None:
        for _, error in self._scribe.write([self._job]):
            raise error


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a scan would do.

    Attributes:
        name: of the checkpoint.
        uri: where it is.
        format: its format.
        files: how many files hold its weights.
        tensors: tensors that would be counted.
        listed: tensors that would only be listed, with a reason.
        nbytes: bytes that would be read.
        tasks: how many tasks that makes.
        workers: how many run at once.
        projected_bytes: memory that it may take at its peak.
    """

    name: str
    uri: str
    format: str
    files: int
    tensors: int
    listed: int
    nbytes: int
    tasks: int
    workers: int
    projected_bytes: int


def dry_run(
    uri: str | Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    device: str = "auto",
    iid: bool = False,
    spectrum: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    task_bytes: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
) -> DryRun:
    """Plan a scan and do nothing; arguments and errors as for `scan`."""
    checkpoint = open_checkpoint(str(uri))
    require_sound(checkpoint)
    with choose_executor(ray, workers, device=device) as executor:
        limits = limits_of(
            executor,
            task_bytes=task_bytes,
            block_bytes=block_bytes,
            memory_bytes=memory_bytes,
            ranges=ranges,
            nbytes=checkpoint.nbytes,
        )
    wanted = Selection(tuple(include), tuple(exclude))
    plan = plan_scan(checkpoint, wanted, limits, {}, iid=depth(iid=iid, spectrum=spectrum))
    return DryRun(
        name=checkpoint.name,
        uri=checkpoint.uri,
        format=checkpoint.format,
        files=len(checkpoint.files),
        tensors=len(plan.measured),
        listed=len(plan.listed),
        nbytes=plan.nbytes,
        tasks=len(plan.tasks),
        workers=limits.workers,
        projected_bytes=plan.projected_bytes,
    )
