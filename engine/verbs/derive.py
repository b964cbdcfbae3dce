"""Subjects that are made of several checkpoints, from their entry in the warehouse to their last rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.errors import TaskError
from engine.execution.drive import drive
from engine.execution.executor import Executor, MakeBody
from engine.nouns.events import Listener
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Outcome, Task
from engine.plan import Limits
from engine.plan.shared import Covered, SharedPlan
from engine.tasks.count import CountBody
from engine.verbs.scan_job import ScanJob
from engine.verbs.scribe import Scribe
from engine.verbs.shared_feed import SharedFeed, shared_bytes
from engine.warehouse.journal import Journal
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, Standing, begin, find_complete, forget_others

Codes = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Source:
    """What a derived subject is made of.

    Attributes:
        uri: what is measured.
        inventory: the subject as a checkpoint: a tensor for each row that it will have.
        kind: of the subject.
        name: its name, if it is new.
        spec: what decides what the rows say.
        parents: the checkpoints that it is made of.
        plan_second: makes the tasks of a second pass over it alone.
        replaces: whether what was begun at its place as another thing will not be gone on with.
    """

    uri: str
    inventory: Checkpoint
    kind: str
    name: str
    spec: Spec
    parents: tuple[Checkpoint, ...]
    plan_second: Callable[[Codes], tuple[Task, ...]]
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Means:
    """With what subjects are derived.

    Attributes:
        store: the warehouse.
        executor: who runs the tasks.
        limits: for the plans.
        listener: told what happens.
        exact: whether there is a second pass.
        force: whether to count again what is complete.
    """

    store: Warehouse
    executor: Executor
    limits: Limits
    listener: Listener
    exact: bool
    force: bool


def derive(
    sources: Sequence[Source],
    plan: Callable[[Sequence[int], Sequence[Covered]], SharedPlan],
    means: Means,
    *,
    body: MakeBody[Outcome[Any]] | None = None,
) -> tuple[list[Standing], int]:
    """Count what is missing of several subjects, in one reading of what they are made of.

    Args:
        sources: of the subjects.
        plan: plans some of them, by number, given what is counted of each.
        means: with what.
        body: makes what runs the tasks; None for counting on the device that the limits say.

    Returns:
        how each subject stood before, and how many bytes were read.

    Raises:
        GaussmeterError: a task failed; what was counted is kept.
    """
    with means.store.writing() as connection:
        standings: list[Standing] = []
        for source in sources:
            beside = [(s.inventory, e.subject_id) for s, e in zip(sources, standings, strict=False)]
            standings.append(_enter(connection, source, beside, force=means.force))
    missing = [number for number, standing in enumerate(standings) if not standing.complete]
    if not missing:
        return standings, 0
    jobs = [_job(sources[number], standings[number], means) for number in missing]
    shared = plan(missing, [job.covered() for job in jobs])
    made = body or partial(CountBody, means.limits.device)
    shares = [shared_bytes(task, shared.offsets) for task in shared.tasks]
    try:
        for number, job in enumerate(jobs):
            job.begin(shared.plans[number], [own[number] for own in shares if number in own])
        scribe = Scribe(means.store, means.listener)
        _run(SharedFeed(jobs, shared.offsets, shared.tasks, scribe), means.executor, made)
    finally:
        for job in jobs:
            job.close()
    return standings, sum(job.nbytes_read for job in jobs)


def _enter(
    connection: Connection, source: Source, beside: Sequence[tuple[Checkpoint, int]], *, force: bool
) -> Standing:
    """Enter a subject; a parent may be one that was entered just before, and is counted along."""
    if source.replaces:
        forget_others(connection, source.inventory, source.kind)
    found = [
        next((n for own, n in beside if own is c), None) or find_complete(connection, c)
        for c in source.parents
    ]
    parents = [n for n in found if n is not None]
    return begin(
        connection,
        source.inventory,
        name=source.name,
        spec=source.spec,
        force=force,
        kind=source.kind,
        parents=parents,
    )


def _job(source: Source, standing: Standing, means: Means) -> ScanJob:
    return ScanJob(
        source.inventory,
        standing,
        exact=means.exact,
        limits=means.limits,
        listener=means.listener,
        journal=Journal(means.store.path, source.inventory),
        plan_second=source.plan_second,
    )


def _run(feed: SharedFeed, executor: Executor, body: MakeBody[Outcome[Any]]) -> None:
    if feed.ended():
        return
    try:
        with executor.open(body) as pool:
            drive(pool, feed)
    except (TaskError, KeyboardInterrupt) as error:
        feed.stop(error)
        raise
