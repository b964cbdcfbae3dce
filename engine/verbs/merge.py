"""`merge`: several models into one that is never whole in memory, to be resumed after a crash."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.execution.choose import choose_executor
from engine.execution.executor import Executor
from engine.nouns.defaults import RANGES, WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.plan.fates import counts
from engine.verbs.derive import Means
from engine.verbs.limits import limits_of
from engine.verbs.merge_inputs import open_inputs, refusals
from engine.verbs.merge_job import MergeJob
from engine.verbs.merge_output import Output
from engine.warehouse.store import Warehouse

if TYPE_CHECKING:
    from engine.verbs.fold_job import FoldJob

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did.

    Attributes:
        out: the folder.
        method: how it was merged.
        status: `merged`, `resumed` (an interrupted merge was completed) or `unchanged` (nothing was written).
        subject_id: the merged model's number in the warehouse; None if nothing was written.
        name: its name there.
        merged: tensors that were merged.
        copied: tensors of the first model that were copied, as (name, reason).
        refused: tensors that were left out, as (name, reason).
        files: how many files hold the weights.
        nbytes: bytes of them.
        nbytes_read: bytes that this run has read.
        notes: what is worth knowing of the configuration.
        seconds: how long it took.
    """

    out: str
    method: str
    status: str
    subject_id: int | None
    name: str
    merged: int
    copied: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    files: int
    nbytes: int
    nbytes_read: int
    notes: tuple[str, ...]
    seconds: float


def merge(
    config: str | Path | Mapping[str, Any] | None,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
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
) -> MergeReport:
    """Merge models into one, block by block: read side by side, merged, rounded once, counted, written.

    What must be known of whole tensors comes from the differences of the models from their base: those that
    the warehouse has, otherwise they are counted on the way and stored there, as `engine.delta` would. The
    merged model becomes a subject.

    Or fold an adapter into its base: base + dW, formed by blocks of rows as `engine.delta` does.

    Args:
        config: a file with mergekit's YAML, or what it says; see `engine.config.merge`. None with an adapter.
        out: a directory that is not there yet, or is empty, or holds an interrupted merge of the same.
        adapter: the folder of an adapter, in place of a configuration.
        base: the model that it changes; by default the one that it names.
        warehouse: the DuckDB file, made when missing.
        name: the subject's name, by default the directory's.
        shard_bytes: how much of the weights a file holds at most.
        workers: as for `engine.scan`.
        ray: likewise; all machines must see the same directory.
        executor: likewise.
        force: replace an earlier merge that is there, finished or not.
        task_bytes: about how many bytes a task reads, of all models together.
        memory_bytes: refuse the plan if it may take more.
        ranges: how many requests at once read distant checkpoints.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        FormatError: the models do not fit together; or a file is damaged.
        ConfigError, BudgetError, TaskError, WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    if shard_bytes < 1:
        raise ConfigError(f"a file must hold at least one byte, not {shard_bytes:,}")
    if (config is None) == (adapter is None) or (base is not None and adapter is None):
        raise ConfigError("a merge needs a configuration, or an adapter and maybe its base")
    output = Output(str(out))
    job = _job(config, adapter, base, output, shard_bytes, name or output.path.name)
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(ray, workers, listener=listener))
        limits = limits_of(executor, task_bytes=task_bytes, memory_bytes=memory_bytes, ranges=ranges)
        store = Warehouse(warehouse, listener=listener)
        means = Means(store, executor, limits, listener, exact=False, force=force)
        job.run(means)
    written = job.written
    return MergeReport(
        out=str(output.path),
        method=job.method,
        status=written.status,
        subject_id=written.subject_id,
        name=written.name,
        merged=counts(job.fates)["merged"],
        copied=tuple((f.tensor.name, f.reason) for f in job.fates if f.kind == "copied"),
        refused=refusals(job.fates),
        files=len(written.layout.shards),
        nbytes=written.layout.nbytes,
        nbytes_read=written.nbytes_read,
        notes=job.notes,
        seconds=time.monotonic() - began,
    )


def _job(
    config: str | Path | Mapping[str, Any] | None,
    adapter: str | Path | None,
    base: str | Path | None,
    output: Output,
    shard_bytes: int,
    name: str,
) -> MergeJob | FoldJob:
    if adapter is not None:
        from engine.verbs.fold_job import FoldJob  # with all that reads adapters

        return FoldJob(str(adapter), None if base is None else str(base), output, shard_bytes, name)
    assert config is not None
    return MergeJob(open_inputs(config), output, shard_bytes, name)
