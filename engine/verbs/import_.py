"""`import`: subjects that another warehouse has exported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, FormatError, MissingError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Found, Judged, Listener, ignore
from engine.nouns.records import SourceFile
from engine.storage.depot import Depot
from engine.warehouse.exchange import SUBJECTS, TABLES, identity_of, key_in
from engine.warehouse.import_ import (
    Incoming,
    Shape,
    add_order,
    find_known,
    order_is_deeper,
    read_incoming,
    shapes,
    take_in,
)
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.store import Warehouse


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one subject.

    Attributes:
        subject: its name, or its folders' where that cannot be read.
        key: the name of its folders.
        status: `imported`, `unchanged` (it was here already), `added` (it was here, and what is known of its
            rows and columns came to it) or `refused`.
        subject_id: its number here.
        reason: why it was refused; or what was left out.
    """

    subject: str
    key: str
    status: str
    subject_id: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        uri: where the files are.
        subjects: what became of each.
        seconds: how long it took.
    """

    uri: str
    subjects: tuple[Imported, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether nothing was refused."""
        return not any(s.status == "refused" for s in self.subjects)


def import_(
    uri: str | Path, *, warehouse: str | Path = WAREHOUSE, listener: Listener = ignore
) -> ImportReport:
    """Take in the subjects of an export, each in one transaction, under new numbers.

    A subject that is here already is left as it is; what the export knows more of its rows, columns and
    singular values, as `engine.scan` with `iid` finds it, is added. One whose files are damaged, incomplete,
    foreign or newer is reported, and does not stop the others. Everything that a file says is checked before
    it is kept.

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
    for table in (*TABLES, SUBJECTS):
        files |= depot.files(table)
    keys = sorted({key for path in files if (key := key_in(path)) is not None})
    if not keys:
        raise ConfigError("holds no subject that `gaussmeter export` has written", file=depot.uri)
    listener(Found(len(keys)))
    store = Warehouse(warehouse, listener=listener)
    with store.writing() as connection:  # makes it, should it be missing
        expected = shapes(connection)
    job = _Import(store, expected, listener)
    job.run(keys, files)
    return ImportReport(depot.uri, tuple(job.done), time.monotonic() - began)


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
    rows = all_rows(
        connection,
        "SELECT uri, fingerprint, kind, spec::VARCHAR, subject_id FROM subjects WHERE status = 'complete' "
        "ORDER BY subject_id",
    )
    here = {identity_of(*row[:4]): int(row[4]) for row in rows}
    return {p: here[p] for p in incoming.manifest.parents if p in here}
