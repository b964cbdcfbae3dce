"""`import`: subjects that another warehouse has exported."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, FormatError, MissingError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Found, Judged, Listener, ignore
from engine.nouns.records import SourceFile
from engine.storage.depot import Depot
from engine.verbs.import_runs import Imported, import_refusals, import_runs, subjects_by_identity
from engine.warehouse.exchange import REFUSALS, RUN_TABLES, RUNS, SUBJECTS, TABLES, key_in
from engine.warehouse.import_ import (
    Incoming,
    add_order,
    find_known,
    order_is_deeper,
    read_incoming,
    shapes,
    take_in,
)
from engine.warehouse.rows import Connection
from engine.warehouse.sound import Shape
from engine.warehouse.store import Warehouse


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        uri: where the files are.
        subjects: what became of each.
        seconds: how long it took.
        runs: what became of each run.
        refusals: how many rows of what was refused were not known here.
        reason: why these could not be read; "" if they could, or are not there.
    """

    uri: str
    subjects: tuple[Imported, ...]
    seconds: float
    runs: tuple[Imported, ...] = ()
    refusals: int = 0
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing was refused."""
        return not self.reason and not any(s.status == "refused" for s in (*self.subjects, *self.runs))


def import_(
    uri: str | Path, *, warehouse: str | Path = WAREHOUSE, listener: Listener = ignore
) -> ImportReport:
    """Take in the subjects of an export, each in one transaction, under new numbers.

    A subject that is here already is left as it is; what the export knows more of its rows, columns and
    singular values, as `engine.scan` with `iid` finds it, is added. One whose files are damaged, incomplete,
    foreign or newer is reported, and does not stop the others. So it is with runs; one that did not come to
    its end here gives way to one that did, and a run of another configuration never does. Everything that a
    file says is checked before it is kept.

    Args:
        uri: what `export` has written to.
        warehouse: the DuckDB file, made when missing.
        listener: told what happens.

    Returns:
        what became of each subject.

    Raises:
        ConfigError: there is no export.
        TaskError: the store does not answer.
        WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    depot = Depot(str(uri))
    depot.check_readable()
    files: dict[str, SourceFile] = {}
    for table in (*TABLES, SUBJECTS, *RUN_TABLES, RUNS, REFUSALS.partition("/")[0]):
        files |= depot.files(table)
    keys, run_keys = _keys(files, (*TABLES, SUBJECTS)), _keys(files, (*RUN_TABLES, RUNS))
    if not keys and not run_keys and REFUSALS not in files:
        raise ConfigError("holds no subject that `gaussmeter export` has written", file=depot.uri)
    listener(Found(len(keys)))
    store = Warehouse(warehouse, listener=listener)
    with store.writing() as connection:  # makes it, should it be missing
        expected = shapes(connection)
    job = _Import(store, expected, listener)
    job.run(keys, files)
    runs = import_runs(store, run_keys, files)
    refusals, reason = import_refusals(store, files.get(REFUSALS))
    return ImportReport(depot.uri, tuple(job.done), time.monotonic() - began, runs, refusals, reason)


def _keys(files: Iterable[str], tables: Collection[str]) -> list[str]:
    """The folders in which some tables have files."""
    found = (key_in(path) for path in files if path.partition("/")[0] in tables)
    return sorted({key for key in found if key is not None})


class _Import:
    """Takes in what is offered, one after the other."""

    def __init__(self, store: Warehouse, expected: dict[str, Shape], listener: Listener) -> None:
        self._store, self._expected, self._listener = store, expected, listener
        self.done: list[Imported] = []

    def run(self, keys: list[str], files: dict[str, SourceFile]) -> None:
        """Parents come before what was derived from them."""
        offered = []
        for key in keys:
            try:
                offered.append(read_incoming(key, files, self._expected))
            except (FormatError, MissingError) as error:
                self._note(Imported(key, key, "refused", reason=str(error)))
        offered.sort(key=lambda i: (i.finished_at, i.key))
        with self._store.reading() as connection:
            known = [find_known(connection, i.row, "complete") for i in offered]
        for incoming, subject_id in zip(offered, known, strict=True):
            name = incoming.row["subject"]
            try:
                if subject_id is not None:
                    self._note(self._add(incoming, subject_id))
                    continue
                self._note(self._take_in(incoming))
            except (FormatError, MissingError) as error:
                self._note(Imported(name, incoming.key, "refused", reason=str(error)))

    def _take_in(self, incoming: Incoming) -> Imported:
        name = incoming.row["subject"]
        with self._store.writing() as connection:
            known = find_known(connection, incoming.row, "complete")
            if known is not None:  # somebody was quicker
                return Imported(name, incoming.key, "unchanged", known)
            parents = _parents(connection, incoming)
            subject_id = take_in(connection, incoming, self._expected, list(parents.values()))
        absent = [p for p in incoming.manifest.parents if p not in parents]
        reason = f"without its parent {', '.join(absent)}, which is not here" if absent else ""
        return Imported(name, incoming.key, "imported", subject_id, reason)

    def _add(self, incoming: Incoming, subject_id: int) -> Imported:
        """Take in what is not known here of a subject that is here."""
        name, status = incoming.row["subject"], "unchanged"
        with self._store.reading() as connection:
            deeper = order_is_deeper(connection, subject_id, incoming)
        if deeper:
            with self._store.writing() as connection:
                if order_is_deeper(connection, subject_id, incoming):  # nobody was quicker
                    add_order(connection, incoming, self._expected, subject_id)
                    status = "added"
        return Imported(name, incoming.key, status, subject_id)

    def _note(self, entry: Imported) -> None:
        self.done.append(entry)
        self._listener(Judged(entry.subject, entry.status, entry.reason))


def _parents(connection: Connection, incoming: Incoming) -> dict[str, int]:
    """Numbers here of those parents that are here, by identity."""
    if not incoming.manifest.parents:
        return {}
    here = subjects_by_identity(connection)
    return {p: here[p] for p in incoming.manifest.parents if p in here}
