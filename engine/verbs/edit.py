"""`edit`: a model of which only outliers, only the Gaussian part or only what is not small is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.execution.choose import choose_executor
from engine.execution.executor import Executor
from engine.nouns.defaults import RANGES, WAREHOUSE
from engine.nouns.editing import KEEPS, Edit
from engine.nouns.events import Listener, ignore
from engine.plan import Selection
from engine.plan.editing import Choice
from engine.verbs.derive import Means
from engine.verbs.edit_inputs import Wish, opened
from engine.verbs.edit_job import EditJob
from engine.verbs.limits import limits_of
from engine.verbs.merge import SHARD_BYTES
from engine.verbs.merge_inputs import refusals
from engine.verbs.merge_output import Output
from engine.warehouse.store import Warehouse

T = 3.0


@dataclass(frozen=True, slots=True)
class EditReport:
    """What an edit did.

    Attributes:
        out: the folder.
        change: what was kept, in words.
        status: `edited`, `resumed` (an interrupted edit was completed) or `unchanged` (nothing was written).
        subject_id: the edited model's number in the warehouse; None if nothing was written.
        name: its name there.
        edited: tensors that were edited.
        copied: tensors that were not.
        passed_over: tensors that were chosen and copied all the same, as (name, reason).
        refused: what was left out, as (name, reason).
        kept: elements of the edited tensors that were kept.
        zeroed: elements of them that were not: they are +0, or the base's.
        files: how many files hold the weights.
        nbytes: bytes of them.
        nbytes_read: bytes that this run has read.
        seconds: how long it took.
    """

    out: str
    change: str
    status: str
    subject_id: int | None
    name: str
    edited: int
    copied: int
    passed_over: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    kept: int
    zeroed: int
    files: int
    nbytes: int
    nbytes_read: int
    seconds: float


def edit(
    model: str | Path,
    out: str | Path,
    *,
    keep: str | None = None,
    t: float | None = None,
    floor: float | None = None,
    base: str | Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    warehouse: str | Path = WAREHOUSE,
    name: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int | None = None,
    ray: str | None = None,
    executor: Executor | None = None,
    force: bool = False,
    task_bytes: int | None = None,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
    listener: Listener = ignore,
) -> EditReport:
    """Write a model in which some elements are kept bit by bit, and the others are +0 (the paper's App. B.1).

    Mean and sigma are those of the finite elements of each whole tensor, and the interval is closed, as in
    the paper's filter; NaN and infinities are outliers. They come from the counts that the warehouse has,
    otherwise the tensor is counted on the way, and the model becomes a subject as `engine.scan` would leave
    it. The edited model becomes a subject of kind `edit`.

    Args:
        model: the checkpoint that is edited.
        out: a directory that is not there yet, or is empty, or holds an interrupted edit of the same.
        keep: `outliers`, beyond [mean - t sigma, mean + t sigma], or `gaussian`, what lies in it.
        t: how many sigma, 3 by default.
        floor: in place of `keep`, the least magnitude that is kept.
        base: the checkpoint that the model was tuned from. Then it is the difference model - base, in
            float32, that is looked at, and what is not kept is the base's element, rounded to the model's
            dtype.
        include: shell patterns; only tensors whose name matches one are edited, by default all of two or more
            dimensions. All others are copied.
        exclude: shell patterns; tensors whose name matches one are not edited.
        warehouse: the DuckDB file, made when missing.
        name: the subject's name, by default the directory's.
        shard_bytes: how much of the weights a file holds at most.
        workers: as for `engine.scan`.
        ray: likewise; all machines must see the same directory.
        executor: likewise.
        force: replace an earlier edit that is there, finished or not.
        task_bytes: about how many bytes a task reads.
        memory_bytes: refuse the plan if it may take more.
        ranges: how many requests at once read distant checkpoints.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        FormatError: the model cannot be edited; or a file is damaged.
        ConfigError, BudgetError, TaskError, WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    change = change_of(keep, t, floor)
    if shard_bytes < 1:
        raise ConfigError(f"a file must hold at least one byte, not {shard_bytes:,}")
    output = Output(str(out))
    choice = Choice(Selection(tuple(include), tuple(exclude)), matrices=not include)
    wish = Wish(*opened(str(model)), None if base is None else opened(str(base))[0], change, choice)
    job = EditJob(wish, output, shard_bytes, name or output.path.name)
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(ray, workers, listener=listener))
        limits = limits_of(executor, task_bytes=task_bytes, memory_bytes=memory_bytes, ranges=ranges)
        store = Warehouse(warehouse, listener=listener)
        job.run(Means(store, executor, limits, listener, exact=False, force=force))
    return _report(job, change, time.monotonic() - began)


def change_of(keep: str | None, t: float | None, floor: float | None) -> Edit:
    """Check what is to be kept.

    Raises:
        ConfigError: it makes no sense.
    """
    if keep is not None and floor is not None:
        raise ConfigError(f"an edit keeps {keep}, or what is at least a floor, not both")
    if keep is None and floor is None:
        raise ConfigError("an edit needs what to keep: outliers, gaussian, or a floor")
    if keep is not None and keep not in KEEPS:
        raise ConfigError(f"an edit keeps {' or '.join(KEEPS)}, not {keep!r}")
    if floor is not None:
        if t is not None:
            raise ConfigError("t goes with outliers or gaussian, not with a floor")
        if not 0 < floor < math.inf:
            raise ConfigError(f"a floor is a number above 0, not {floor:g}")
        return Edit(None, 0.0, float(floor))
    reach = T if t is None else float(t)
    if not 0 <= reach < math.inf:
        raise ConfigError(f"t is a number of sigmas, at least 0, not {reach:g}")
    return Edit(keep, reach)


def _report(job: EditJob, change: Edit, seconds: float) -> EditReport:
    written = job.written
    copied = [f for f in job.fates if f.kind == "copied"]
    return EditReport(
        out=str(written.output.path),
        change=change.words,
        status="edited" if written.status == "merged" else written.status,
        subject_id=written.subject_id,
        name=written.name,
        edited=sum(f.kind == "merged" and f.tied is None for f in job.fates),
        copied=len(copied),
        passed_over=tuple((f.tensor.name, f.reason) for f in copied if f.reason),
        refused=refusals(job.fates),
        kept=sum(kept for kept, _ in job.kept.values()),
        zeroed=sum(zeroed for _, zeroed in job.kept.values()),
        files=len(written.layout.shards),
        nbytes=written.layout.nbytes,
        nbytes_read=written.nbytes_read,
        seconds=seconds,
    )
