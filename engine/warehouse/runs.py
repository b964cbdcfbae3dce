"""Adaptation runs in the warehouse: entered, measured step by step, finished, linked to what they changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.nouns.tuning import RunSpec
from engine.version import __version__
from engine.warehouse.columns import insert_records
from engine.warehouse.rows import Connection, all_rows, one_value
from engine.warehouse.subjects import NOW


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that is in the warehouse.

    Attributes:
        run_id: its number.
        status: `running`, `complete` or `failed`.
        spec: the fields of its `RunSpec`.
        commit: of the Hub's model that it was begun with, "" for a folder.
        folder: where it keeps what it learns.
    """

    run_id: int
    status: str
    spec: Mapping[str, Any]
    commit: str = ""
    folder: str = ""


def known_runs(connection: Connection, names: Sequence[str]) -> dict[str, KnownRun]:
    """Those of some runs that are there, by name."""
    rows = all_rows(
        connection,
        "SELECT name, run_id, status, spec, model, folder FROM runs "
        "WHERE list_contains(?::VARCHAR[], name) AND spec IS NOT NULL",
        [list(names)],
    )
    return {name: _known(*row) for name, *row in rows}


def _known(run_id: int, status: str, spec: str, model: str | None, folder: str | None) -> KnownRun:
    said: Mapping[str, Any] = json.loads(spec)
    before, mark, commit = (model or "").rpartition("@")
    commit = commit if mark and before == said.get("model") else ""
    return KnownRun(run_id, status, said, commit, folder or "")


def fields_of(run: RunSpec) -> dict[str, Any]:
    """What a run is, as its row keeps it."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(run)))
    return found


def enter_run(connection: Connection, run: RunSpec, model: str, revision: str) -> int:
    """Enter a run, or take up one of this name that is not complete.

    Args:
        connection: in a transaction.
        run: as its configuration describes it.
        model: where its model is.
        revision: the commit of a model of the Hub, "" elsewhere.

    Returns:
        its number.
    """
    known = known_runs(connection, [run.name]).get(run.name)
    if known is not None:
        sql = "UPDATE runs SET status = 'running', reason = NULL, folder = ? WHERE run_id = ?"
        connection.execute(sql, [run.folder, known.run_id])
        return known.run_id
    number = int(one_value(connection, "SELECT coalesce(max(run_id), 0) + 1 FROM runs"))
    row = {
        "run_id": number,
        "name": run.name,
        "sweep": run.name.partition("/")[0],
        "label": run.method.label,
        "method": run.method.name,
        "r": run.method.rank,
        "task": run.task.name,
        "seed": run.seed,
        "model": model + f"@{revision}" * bool(revision),
        "folder": run.folder,
        "spec": json.dumps(fields_of(run), sort_keys=True),
        "status": "running",
        "engine_version": __version__,
    }
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO runs ({names}, started_at) SELECT {marks}, {NOW}", list(row.values()))
    return number


def drop_metrics(connection: Connection, run_id: int) -> None:
    """Forget what was measured of a run: when it goes on from a checkpoint, that says it all again."""
    connection.execute("DELETE FROM metrics WHERE run_id = ?", [run_id])


def add_metrics(connection: Connection, rows: Iterable[tuple[int, int, Mapping[str, float]]]) -> None:
    """Add what was measured, as (run, step, numbers by name)."""
    records = [
        {"run_id": run_id, "step": step, "name": name, "value": float(value)}
        for run_id, step, metrics in rows
        for name, value in metrics.items()
    ]
    if records:
        insert_records(connection, "metrics", records)


def finish_run(
    connection: Connection, run_id: int, learnt: Mapping[str, Any], subject_id: int | None, seconds: float
) -> None:
    """Mark a run complete.

    Args:
        connection: in a transaction.
        run_id: which.
        learnt: fields of `engine.tuning.loop.Learnt`.
        subject_id: of its dW, None if that was not counted.
        seconds: how long it took.
    """
    names, step = list(learnt["metrics"]), learnt["steps"]
    connection.execute(
        "DELETE FROM metrics WHERE run_id = ? AND list_contains(?::VARCHAR[], name)", [run_id, names]
    )
    add_metrics(connection, [(run_id, step, learnt["metrics"])])
    connection.execute("DELETE FROM scalars WHERE run_id = ?", [run_id])
    if learnt["scalars"]:
        rows = [{"run_id": run_id, "tensor": t, "value": v} for t, v in learnt["scalars"].items()]
        insert_records(connection, "scalars", rows)
    connection.execute(
        "UPDATE runs SET status = 'complete', subject_id = ?, parameters = ?, head_parameters = ?, "
        f"steps = ?, seconds = ?, finished_at = {NOW} WHERE run_id = ?",
        [subject_id, learnt["parameters"], learnt["head"], step, seconds, run_id],
    )


def fail_run(connection: Connection, run_id: int, reason: str) -> None:
    """Say why a run did not come to its end."""
    connection.execute(
        f"UPDATE runs SET status = 'failed', reason = ?, finished_at = {NOW} WHERE run_id = ?",
        [reason, run_id],
    )
