"""`check`: is something wrong with a checkpoint? For people, and for somebody's CI."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, FormatError
from engine.execution.in_process import InProcessExecutor
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.defaults import MAX_MAGNITUDE, WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.records import Checkpoint
from engine.storage import local_path
from engine.verbs.limits import limits_of
from engine.verbs.look import find_subject
from engine.verbs.scan import scan_checkpoint
from engine.warehouse.queries import named_queries, run_query
from engine.warehouse.store import Warehouse

PROBLEMS = ("damaged", "missing", "nan", "infinite", "zero", "constant", "dead rows", "magnitude")
"""Every kind of finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong.

    Attributes:
        where: the tensor, or the file when it is no tensor's fault.
        problem: one of `PROBLEMS`.
        detail: what exactly, with numbers.
    """

    where: str
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        subject: what was checked.
        tensors: how many tensors were looked at.
        findings: what is wrong; empty for a sound checkpoint.
    """

    subject: str
    tensors: int
    findings: tuple[Finding, ...]


def check(
    subject: str | Path,
    *,
    warehouse: str | Path = WAREHOUSE,
    ignore_problems: Sequence[str] = (),
    max_magnitude: float = MAX_MAGNITUDE,
    workers: int | None = None,
    listener: Listener = ignore,
) -> CheckReport:
    """Look for damage. Dead rows are known of subjects that were scanned with `iid` only.

    Args:
        subject: a checkpoint's place, which is read now and enters no warehouse; or a subject of the
            warehouse.
        warehouse: where to look a subject up.
        ignore_problems: kinds of findings to leave out, of `PROBLEMS`.
        max_magnitude: weights beyond it are reported.
        workers: threads; one per core by default.
        listener: told what happens.

    Raises:
        ConfigError: there is nothing of that name, or an unknown kind of problem.
        WarehouseError, TaskError: see `engine.errors`.
    """
    if unknown := sorted(set(ignore_problems) - set(PROBLEMS)):
        raise ConfigError(f"there is no problem {unknown[0]!r} to ignore; there are: {', '.join(PROBLEMS)}")
    if "://" in str(subject) or local_path(str(subject)):
        report = _check_checkpoint(str(subject), max_magnitude, workers, listener)
    elif local_path(str(warehouse)) is None:
        raise ConfigError("is neither a checkpoint nor, without a warehouse, a subject", file=str(subject))
    else:
        report = _check_subject(Warehouse(warehouse, listener=listener), str(subject), max_magnitude)
    kept = tuple(f for f in report.findings if f.problem not in ignore_problems)
    return CheckReport(report.subject, report.tensors, kept)


def _check_checkpoint(uri: str, max_magnitude: float, workers: int | None, listener: Listener) -> CheckReport:
    try:
        checkpoint = open_checkpoint(uri)
        faults = tuple(Finding(f.tensor or f.file, "missing", f.message) for f in checkpoint.faults)
        values = _check_values(checkpoint, max_magnitude, workers, listener)
    except FormatError as error:
        damage = Finding(error.tensor or error.file or uri, "damaged", error.message)
        return CheckReport(uri, 0, (damage,))
    return CheckReport(values.subject, values.tensors, faults + values.findings)


def _check_values(
    checkpoint: Checkpoint, max_magnitude: float, workers: int | None, listener: Listener
) -> CheckReport:
    if not checkpoint.tensors:
        return CheckReport(checkpoint.name, 0, ())
    with tempfile.TemporaryDirectory(prefix="gaussmeter-") as folder:
        store = Warehouse(Path(folder) / "check.duckdb")
        executor = InProcessExecutor(workers)
        report = scan_checkpoint(checkpoint, store, executor, limits_of(executor), listener=listener)
        return _check_subject(store, str(report.subject_id), max_magnitude)


def _check_subject(store: Warehouse, wanted: str, max_magnitude: float) -> CheckReport:
    with store.reading() as connection:
        subject_id = find_subject(connection, wanted)
        whole = run_query(
            connection, named_queries("verbs")["show_subject"], {"subject_id": subject_id}
        ).records()
        given = {"subject_id": subject_id, "max_magnitude": float(max_magnitude)}
        rows = run_query(connection, named_queries("verbs")["check"], given).rows
    name, tensors = (whole[0]["subject"], whole[0]["tensors"]) if whole else (wanted, 0)
    return CheckReport(name, tensors, tuple(Finding(*row) for row in rows))
