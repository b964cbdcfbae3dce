"""`export`: subjects and runs as Parquet files, for any tool, and for `import` into another warehouse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, FormatError, TaskError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Found, Judged, Listener, ignore
from engine.nouns.records import SourceFile
from engine.storage.depot import Depot
from engine.verbs.look import find_subject
from engine.warehouse.exchange import (
    CODES,
    REFUSALS,
    RUN_TABLES,
    RUNS,
    SUBJECTS,
    TABLES,
    file_of,
    key_in,
    key_of,
    parse_manifest,
    parse_mark,
)
from engine.warehouse.export import Card, codes_mark, read_cards, write_codes, write_subject
from engine.warehouse.parquet import open_parquet
from engine.warehouse.refusals import joined, own_refusals, read_refusals, refusal_shape, write_refusals
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.run_export import (
    RunCard,
    read_run_cards,
    runs_of_subjects,
    unfinished_runs,
    write_run,
)
from engine.warehouse.sound import Shape
from engine.warehouse.store import Warehouse


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one subject, or of one run.

    Attributes:
        subject: its name.
        key: the name of its folders.
        status: `exported`, `unchanged` (nothing was written) or `skipped`.
        nbytes: bytes of its files.
        reason: why it was skipped.
    """

    subject: str
    key: str
    status: str
    nbytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        out: where the files are.
        subjects: what became of each.
        seconds: how long it took.
        runs: what became of each run.
        refusals: what became of the list of what was refused; None if there is none.
    """

    out: str
    subjects: tuple[Exported, ...]
    seconds: float
    runs: tuple[Exported, ...] = ()
    refusals: Exported | None = None

    @property
    def nbytes_written(self) -> int:
        """Bytes of the files that were written."""
        entries = (*self.subjects, *self.runs, *([self.refusals] if self.refusals else ()))
        return sum(s.nbytes for s in entries if s.status == "exported")


def export(
    subjects: str | int | Sequence[str | int] | None,
    out: str | Path,
    *,
    warehouse: str | Path = WAREHOUSE,
    refusals: bool = False,
    listener: Listener = ignore,
) -> ExportReport:
    """Write subjects as Parquet files, so that one pattern reads one table of all of them.

    Runs whose dW is among them come along, with metrics and scalars; with all subjects all runs that came to
    their end, and what was refused, which is joined with what other warehouses have written there.

    What is there already and has not changed is not written again. Every file appears whole or not at all,
    that of the table `subjects` last; killed at any moment, the next export completes it.

    Args:
        subjects: their numbers, names or places; None for all that are complete.
        out: a directory, made when missing, or an address in a bucket.
        warehouse: the DuckDB file.
        refusals: what was refused, too, though these are not all subjects.
        listener: told what happens.

    Returns:
        what was written.

    Raises:
        ConfigError: no such subject or warehouse, or no place to write to.
        TaskError: something could not be written.
        WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    depot = Depot(str(out))
    depot.check_writable()
    store = Warehouse(warehouse, listener=listener)
    with store.reading() as connection:
        cards, skipped = _choose(connection, subjects)
        run_cards, skipped_runs = _choose_runs(connection, None if subjects is None else cards)
    listener(Found(len(cards)))
    job = _Export(store, depot)
    done, runs = list(skipped), list(skipped_runs)
    with depot.scratch() as scratch:
        if cards:
            job.write_codes(scratch)
        for card in cards:
            done.append(job.write(card, scratch))
            listener(Judged(done[-1].subject, done[-1].status, ""))
        runs += [job.write(card, scratch) for card in run_cards]
        refused = job.write_refusals(scratch) if refusals or subjects is None else None
    return ExportReport(depot.uri, tuple(done), time.monotonic() - began, tuple(runs), refused)


def _choose_runs(
    connection: Connection, subjects: Sequence[Card] | None
) -> tuple[list[RunCard], list[Exported]]:
    """The cards of the runs of some subjects or of all there are, and what is passed over."""
    cards = list(read_run_cards(connection, read_cards(connection)).values())
    if subjects is not None:
        return runs_of_subjects(cards, {card.subject_id for card in subjects}), []
    unfinished = unfinished_runs(connection)
    return cards, [Exported(name, "", "skipped", reason=f"the run is {how}") for name, how in unfinished]


def _choose(
    connection: Connection, wanted: str | int | Sequence[str | int] | None
) -> tuple[list[Card], list[Exported]]:
    """The cards of the subjects that are meant, and what is passed over.

    Raises:
        ConfigError: one of them is not there, or not finished.
    """
    cards = read_cards(connection)
    unfinished = all_rows(
        connection, "SELECT subject_id, name, uri FROM subjects WHERE status <> 'complete' ORDER BY ALL"
    )
    if wanted is None:
        reason = "its scan is not finished"
        return list(cards.values()), [
            Exported(name, "", "skipped", reason=reason) for _, name, _ in unfinished
        ]
    words = [str(w) for w in ([wanted] if isinstance(wanted, (str, int)) else wanted)]
    if not words:
        raise ConfigError("which subjects are to be exported?")
    found: dict[int, Card] = {}
    for word in words:
        try:
            subject_id = find_subject(connection, word)
        except ConfigError:
            _refuse_unfinished(unfinished, word)
            raise
        card = cards[subject_id]
        if word not in (str(subject_id), card.name, card.uri):  # it may be but the beginning of its name
            _refuse_unfinished([u for u in unfinished if u[2] != card.uri], word)
        found[subject_id] = cards[subject_id]
    return list(found.values()), []


def _refuse_unfinished(unfinished: Sequence[tuple[int, str, str]], word: str) -> None:
    place = str(Path(word).absolute())
    for subject_id, name, uri in unfinished:
        if word in (str(subject_id), name, uri) or uri == place:
            raise ConfigError(
                f"the scan of {name!r} (subject {subject_id}) is not finished; scan it again to complete it"
            )


class _Export:
    """Writes what is missing of one export."""

    def __init__(self, store: Warehouse, depot: Depot) -> None:
        self._store, self._depot = store, depot
        self._files: dict[str, SourceFile] = {}
        others = (path.partition("/")[0] for path in (CODES, REFUSALS))
        for table in (*TABLES, SUBJECTS, *RUN_TABLES, RUNS, *others):
            self._files |= depot.files(table)
        keys = (key for path in self._files if (key := key_in(path)) is not None)
        self._keys = {key.rpartition("@")[2]: key for key in keys}

    def write_codes(self, scratch: Path) -> None:
        """Write the table of codes, should it not be there."""
        path = scratch / "codes.parquet"
        with self._store.reading() as connection:
            mark = self._mark(CODES)
            if mark is not None and mark["made_of"] == codes_mark(connection):
                return
            write_codes(connection, path)
        self._depot.put(path, CODES)

    def write(self, card: Card | RunCard, scratch: Path) -> Exported:
        """Write a subject or a run, should it not be there as it is now."""
        key = self._keys.get(card.identity) or key_of(card.name, card.identity)
        paths = [file_of(table, key) for table in (*card.tables, card.head)]
        if self._is_there(card, key):
            size = sum(self._files[path].size for path in paths)
            return Exported(card.name, key, "unchanged", size)
        with self._store.reading() as connection:  # for no longer than it must be: nobody can scan meanwhile
            _write_card(connection, card, scratch)
        size = 0
        for path in paths:
            source = scratch / path.rpartition("/")[2]
            size += source.stat().st_size
            self._depot.put(source, path)
        return Exported(card.name, key, "exported", size)

    def write_refusals(self, scratch: Path) -> Exported | None:
        """Write what was refused, should it not be there as it is now; None if nothing was."""
        source, path = self._files.get(REFUSALS), scratch / "refusals.parquet"
        with self._store.reading() as connection:
            shape = refusal_shape(connection)
        there = self._refusals_there(source, shape)  # no writer waits for a distant store
        with self._store.reading() as connection:
            rows = joined(connection, there or [], own_refusals(connection))
            if source is None and not rows:
                return None
            if source is not None and rows == there:
                return Exported("refusals", "", "unchanged", source.size)
            write_refusals(connection, rows, shape, path)
        size = path.stat().st_size
        self._depot.put(path, REFUSALS)
        return Exported("refusals", "", "exported", size)

    def _refusals_there(self, source: SourceFile | None, shape: Shape) -> list[dict[str, Any]] | None:
        """What others have written; None if it has to be written anew."""
        try:
            return None if source is None else read_refusals(source, shape)
        except FormatError:
            return None

    def _is_there(self, card: Card | RunCard, key: str) -> bool:
        path = file_of(card.head, key)
        mark = self._mark(path)
        if mark is None or mark["made_of"] != card.made_of:
            return False
        try:
            files = parse_manifest(mark, path, card.tables).files
        except FormatError:  # it will be written anew
            return False
        there = {table: self._files.get(file_of(table, key)) for table in card.tables}
        return all(source is not None and source.size == files[t].nbytes for t, source in there.items())

    def _mark(self, path: str) -> dict[str, Any] | None:
        """What a file says that it was made from; None if it has to be written."""
        if path not in self._files:
            return None
        try:
            with open_parquet(self._files[path]) as file:
                return parse_mark(file.metadata.metadata, path)
        except FormatError:
            return None


def _write_card(connection: Connection, card: Card | RunCard, scratch: Path) -> None:
    """Write the files of a subject or of a run.

    Raises:
        TaskError: it is not what it was; or a file cannot be written.
    """
    if isinstance(card, Card):
        if read_cards(connection, card.subject_id).get(card.subject_id) != card:
            raise TaskError(f"the subject {card.name!r} was replaced meanwhile; export it again")
        write_subject(connection, card, scratch)
        return
    subjects = {} if card.subject_id is None else read_cards(connection, card.subject_id)
    if read_run_cards(connection, subjects, card.run_id).get(card.run_id) != card:
        raise TaskError(f"the run {card.name!r} was begun anew meanwhile; export it again")
    write_run(connection, card, scratch)
