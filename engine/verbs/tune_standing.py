"""What is there of a sweep already, in the warehouse and as checkpoints; and whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.nouns.tuning import RunSpec
from engine.tuning.trainer import CHECKPOINTS
from engine.warehouse import runs as table
from engine.warehouse.store import Warehouse

MARK = "run.json"
"""The file beside the checkpoints of a run that says what run they are of; it goes with them."""

_FREE = ("folder", "revision")
"""What may be another when a run is resumed: its place, and how its commit was called; that is compared."""
_LATER = "training.workers"
"""What rows of before do not say."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is there of a sweep.

    Attributes:
        complete: the runs that are, by name.
        commits: of the Hub's model, with which runs were begun, by name.
    """

    complete: Mapping[str, table.KnownRun]
    commits: Mapping[str, str]


def standing(store: Warehouse, runs: Sequence[RunSpec], *, resume: bool) -> Standing:
    """Find out what is there of the runs of a sweep.

    Raises:
        ConfigError: runs are there and were not to be resumed, or were begun with another configuration.
    """
    known: dict[str, table.KnownRun] = {}
    if store.path.is_file():
        with store.reading() as connection:
            known = table.known_runs(connection, [run.name for run in runs])
    there = [run for run in runs if run.name in known or Path(run.folder).exists()]
    if there and not resume:
        status = known[there[0].name].status if there[0].name in known else "its folder is there"
        message = (
            f"{len(there)} of {len(runs)} runs are there already, first {there[0].name} ({status}): "
            "--resume goes on with what is missing; to train them anew, give the sweep another name"
        )
        raise ConfigError(message)
    complete: dict[str, table.KnownRun] = {}
    commits: dict[str, str] = {}
    for run in there:
        entry = known.get(run.name)
        if entry is not None and (other := _differences(entry.spec, table.fields_of(run))):
            raise ConfigError(f"{run.name} was begun with another configuration: {other}")
        if entry is not None and entry.status == "complete":
            complete[run.name], commit = entry, entry.commit
        else:
            commit = _commit_of_checkpoints(run, entry)
        if commit:
            commits[run.name] = commit
    return Standing(complete, commits)


def mark(run: RunSpec, commit: str) -> None:
    """Write down what run the checkpoints in its folder are of, before there are any.

    Args:
        run: as its configuration describes it.
        commit: of a model of the Hub, "" elsewhere.
    """
    place = Path(run.folder) / CHECKPOINTS / MARK
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_suffix(".new")
        scratch.write_text(json.dumps({"run": table.fields_of(run), "commit": commit}), encoding="utf-8")
        scratch.replace(place)
    except OSError:
        return  # the run will fail for the same reason, and say so


def _commit_of_checkpoints(run: RunSpec, known: table.KnownRun | None) -> str:
    """With which commit of the Hub's model a run was begun that is not complete, "" if with none.

    Raises:
        ConfigError: the checkpoints in its folder are of another run, or nobody knows of which.
    """
    folder = Path(run.folder) / CHECKPOINTS
    begun = known.commit if known is not None else ""
    if not any(folder.glob("checkpoint_*")):
        return begun
    found = _marked(folder)
    if found is None:
        if known is None:
            raise ConfigError("has checkpoints, and nothing says of which run: remove it", file=str(folder))
        return begun  # of a version that wrote no mark
    if other := _differences(found["run"], table.fields_of(run)):
        raise ConfigError(f"has checkpoints of another configuration: {other}", file=str(folder))
    commit = str(found["commit"])
    if begun and commit != begun:
        message = f"has checkpoints of {run.model}@{commit}, and {run.name} was begun with commit {begun}"
        raise ConfigError(message, file=str(folder))
    return commit


def _marked(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"run", "commit"} <= found.keys() else None


def _differences(before: Any, now: Any, where: str = "") -> str:
    """The first difference of two specifications, or of two parts of them."""
    if isinstance(before, Mapping) and isinstance(now, Mapping) and "." not in where:
        for key in now:
            place = f"{where}.{key}".lstrip(".")
            if place in _FREE or (place == _LATER and key not in before):
                continue
            if inner := _differences(before.get(key), now[key], place):
                return inner
        return ""
    return "" if before == now else f"{where} was {before!r} and is {now!r}"
