"""`delta`: what tuning has changed: the differences of checkpoints, counted like weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from engine.errors import ConfigError
from engine.execution.choose import choose_executor
from engine.execution.executor import Executor
from engine.formats.adapters.opening import open_adapter
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.adapters import Adapter
from engine.nouns.defaults import RANGES, WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.records import Checkpoint
from engine.plan import BLOCK_BYTES, Selection
from engine.verbs.delta_sources import Family, adapter_family, checkpoint_family
from engine.verbs.derive import Means, Source, derive
from engine.verbs.limits import limits_of
from engine.warehouse.queries import named_queries, run_query
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Standing


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
        changed: share of the compared elements that differ.
        frozen: tensors of which none does.
    """

    subject_id: int
    name: str
    uri: str
    status: str
    tensors: int
    left_out: tuple[tuple[str, str], ...]
    changed: float
    frozen: int


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """What a delta did.

    Attributes:
        base: what was subtracted; None for adapters without one.
        subjects: one for each tuned checkpoint or adapter, in their order.
        nbytes_read: bytes that were read, of all checkpoints together.
        seconds: how long it took.
    """

    base: str | None
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
    base: str | Path | None = None,
    *tuned: str | Path,
    adapters: Sequence[str | Path] = (),
    warehouse: str | Path = WAREHOUSE,
    name: str | None = None,
    strict: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    device: str = "auto",
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
    """Count the differences tuned - base, in float32, as a subject for each tuned checkpoint or adapter.

    All are read in lockstep, the base once, from any stores and formats; no difference is ever whole in
    memory or on disk. Tensors are matched by name, known wrappers stripped. What cannot be compared has a row
    that says why; of an embedding that has grown, the rows that both have are compared.

    Of an adapter it is what it adds to its base, formed by blocks of rows. LoRA and LoRA-Dash need no base;
    DoRA does, and with a base it is checked that the adapter fits.

    Args:
        base: the checkpoint that was tuned.
        tuned: what came of it; one or more.
        adapters: folders of adapters in PEFT's format, in place of `tuned`; the base is read once for all.
        warehouse: the DuckDB file, made when missing.
        name: the subject's name, of a single difference.
        strict: refuse to go on if anything cannot be compared.
        workers: as for `engine.scan`.
        ray: likewise.
        device: likewise.
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
    _require_sense(base, tuned, adapters, name)
    first = None if base is None else _opened(base)
    opened, others = [open_adapter(str(a)) for a in adapters], [_opened(uri) for uri in tuned]
    selection = Selection(tuple(include), tuple(exclude))
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(ray, workers, device=device, listener=listener))
        limits = limits_of(
            executor,
            task_bytes=task_bytes,
            block_bytes=block_bytes,
            memory_bytes=memory_bytes,
            ranges=ranges,
            nbytes=_work(first, others, opened),
        )
        made: Family
        if adapters:
            made = adapter_family(opened, first, selection, limits, exact=exact, strict=strict)
        else:
            assert first is not None
            made = checkpoint_family(first, others, selection, limits, exact=exact, strict=strict)
        sources = [replace(s, name=name) for s in made.sources] if name else made.sources
        store = Warehouse(warehouse, listener=listener)
        means = Means(store, executor, limits, listener, exact, force)
        standings, nbytes = derive(sources, made.plan, means)
    with store.reading() as connection:
        subjects = tuple(_derived(connection, *pair) for pair in zip(sources, standings, strict=True))
    return DeltaReport(first.uri if first else None, subjects, nbytes, time.monotonic() - began)


def _require_sense(
    base: str | Path | None, tuned: Sequence[str | Path], adapters: Sequence[str | Path], name: str | None
) -> None:
    """Refuse a request that says nothing, or two things."""
    several = len(tuned) + len(adapters)
    if not several or (base is None and not adapters):
        raise ConfigError("a delta needs a base and at least one tuned checkpoint, or an adapter")
    if tuned and adapters:
        raise ConfigError("a delta is of checkpoints or of adapters, not of both")
    if name is not None and several > 1:
        raise ConfigError(f"a name is that of one difference, but there are {several}")


def _opened(uri: str | Path) -> Checkpoint:
    checkpoint = open_checkpoint(str(uri))
    require_sound(checkpoint)
    return checkpoint


def _work(base: Checkpoint | None, tuned: Sequence[Checkpoint], adapters: Sequence[Adapter]) -> int:
    """About how many bytes are read, or formed: each dW in 32-bit floats."""
    formed = sum(4 * prod(module.shape) for adapter in adapters for module in adapter.modules)
    return formed + sum(c.nbytes for c in (*tuned, *([base] if base else [])))


def _derived(connection: Connection, source: Source, standing: Standing) -> Derived:
    status = "unchanged" if standing.complete else "resumed" if standing.resumed else "scanned"
    tensors = source.inventory.tensors
    left_out = tuple((t.name, t.why or "") for t in tensors if t.coding is None and t.alias_of is None)
    query = named_queries("verbs")["changed"]
    ((changed, frozen),) = run_query(connection, query, {"subject_id": standing.subject_id}).rows
    return Derived(
        standing.subject_id, standing.name, source.uri, status, len(tensors), left_out, changed, frozen
    )
