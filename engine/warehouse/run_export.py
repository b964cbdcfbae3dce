"""Adaptation runs, from the warehouse to Parquet files, a run at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from engine.warehouse.exchange import FORMAT, RUN_TABLES, RUNS, Manifest, digest, mark_of
from engine.warehouse.export import Card, write_answer
from engine.warehouse.rows import Connection, all_rows, one_value

_CARDS = """
SELECT
    run_id, name, spec::VARCHAR, subject_id, status, started_at, finished_at, engine_version, folder, reason,
    (SELECT count(*) FROM metrics m WHERE m.run_id = r.run_id)
FROM runs r
WHERE status IN ('complete', 'failed') AND (?::INTEGER IS NULL OR run_id = ?)
ORDER BY run_id
"""


@dataclass(frozen=True, slots=True)
class RunCard:
    """What has to be known of a run before it is exported.

    Attributes:
        run_id: its number here.
        name: its name.
        identity: what it is the same by everywhere.
        schema: version of the tables.
        made_of: digest of everything that decides what its files hold.
        subject_id: of its dW here; None if there is none.
        subject_key: identity of that; None likewise.
    """

    tables: ClassVar[tuple[str, ...]] = RUN_TABLES
    head: ClassVar[str] = RUNS

    run_id: int
    name: str
    identity: str
    schema: int
    made_of: str
    subject_id: int | None
    subject_key: str | None


def run_identity(name: str, spec: str | None) -> str:
    """The same for what a warehouse takes for one run, in 16 hexadecimal digits."""
    return digest("run", name, spec)[:16]


def read_run_cards(
    connection: Connection, subjects: Mapping[int, Card], only: int | None = None
) -> dict[int, RunCard]:
    """The cards of all runs that came to an end, or of one, by number.

    Args:
        connection: open for reading.
        subjects: cards of the subjects of their dW, by number.
        only: the number of the one; None for all.
    """
    schema = one_value(connection, "SELECT max(version) FROM schema_migrations")
    cards = {}
    for run_id, name, spec, subject_id, *rest in all_rows(connection, _CARDS, [only, only]):
        subject = subjects[subject_id].identity if subject_id in subjects else None
        made_of = digest(FORMAT, schema, name, spec, subject, rest)
        identity = run_identity(name, spec)
        cards[run_id] = RunCard(run_id, name, identity, schema, made_of, subject_id, subject)
    return cards


def unfinished_runs(connection: Connection) -> list[tuple[str, str]]:
    """Names and standings of the runs that did not come to an end."""
    rows = all_rows(connection, "SELECT name, status FROM runs WHERE status IS NULL OR status NOT IN "
                                "('complete', 'failed') ORDER BY run_id")  # fmt: skip
    return [(name, status or "unknown") for name, status in rows]


def runs_of_subjects(cards: Collection[RunCard], subject_ids: Collection[int]) -> list[RunCard]:
    """Those runs whose dW is one of some subjects."""
    return [card for card in cards if card.subject_id in subject_ids]


def write_run(connection: Connection, card: RunCard, folder: Path) -> Manifest:
    """Write the files of a run, `TABLE.parquet` each; that of `runs` holds the manifest.

    Args:
        connection: open for reading.
        card: the run's.
        folder: where to.

    Raises:
        TaskError: a file cannot be written.
    """
    wanted, mark = {"run_id": card.run_id}, mark_of(card.made_of)
    sizes = {
        table: write_answer(connection, table, [wanted], folder / f"{table}.parquet", mark)
        for table in RUN_TABLES
    }
    manifest = Manifest(card.schema, card.made_of, (), sizes)
    head = {**wanted, "subject_key": card.subject_key}
    write_answer(connection, "run", [head], folder / f"{RUNS}.parquet", manifest.to_bytes())
    return manifest
