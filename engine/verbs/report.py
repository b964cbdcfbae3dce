"""`report`: what the warehouse knows of some subjects, on one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.words import shortened
from engine.pages.html import Html, join, name, section, text
from engine.pages.page import page
from engine.pictures.picture import require_libraries
from engine.pictures.theme import ON_DARK
from engine.plan import Selection
from engine.verbs.drawing import How, Subject
from engine.verbs.gallery import Gallery
from engine.verbs.paper import models_of, own_numbers
from engine.verbs.plot import look_up, write_file
from engine.verbs.report_parts import of_subject, overview
from engine.version import __version__
from engine.warehouse.queries import named_queries, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection, Row
from engine.warehouse.store import Warehouse

_MOST_SUBJECTS = 20
_MOST_SIDE_BY_SIDE = 10


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        path: where.
        subjects: names of what it is about.
        pictures: how many are on it.
        nbytes: of the file.
    """

    path: str
    subjects: tuple[str, ...]
    pictures: int
    nbytes: int


def report(
    *subjects: str | int,
    output: str | Path = "report.html",
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Report:
    """Write a page about subjects: numbers, pictures, damage, what was learnt, provenance.

    Everything comes from the warehouse. The page is one file that works offline.

    Args:
        subjects: numbers, names, places, or beginnings of names.
        output: the file to write.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such subject or warehouse, or too many of them.
        TaskError: the file cannot be written.
        WarehouseError: see `engine.errors`.
    """
    if not 1 <= len(subjects) <= _MOST_SUBJECTS:
        raise ConfigError(f"a report is about 1 to {_MOST_SUBJECTS} subjects, not {len(subjects)}")
    require_libraries()
    gallery = Gallery()
    with Warehouse(warehouse, listener=listener).reading() as connection:
        found = list(dict.fromkeys(look_up(connection, wanted) for wanted in subjects))
        body = _body(connection, found, gallery)
    title = f"gaussmeter: {', '.join(shortened(s.name, 60) for s in found)}"
    data = page(title, gallery.fill(body), ON_DARK).encode()
    write_file(Path(output), data)
    return Report(str(output), tuple(s.name for s in found), gallery.count, len(data))


def _body(connection: Connection, subjects: Sequence[Subject], gallery: Gallery) -> Html:
    links = {f"subject-{s.subject_id}": s.name for s in subjects}
    parts = [_head(subjects), overview(links, _table1(connection, subjects))]
    if len(subjects) > 1:
        beside = gallery.draw(connection, "sigma", subjects[:_MOST_SIDE_BY_SIDE], How(Selection()))
        parts.append(section("Side by side", beside))
    for subject in subjects:
        title = subject.name if len(subjects) > 1 else "What it is"
        parts.append(of_subject(connection, subject, gallery, title))
    return join([*parts, _foot()])


def _table1(connection: Connection, subjects: Sequence[Subject]) -> Result:
    """The lines of the subjects in Table 1, in their order."""
    query = named_queries("paper")["table1"]
    own = json.dumps(own_numbers("table1", models_of(connection)))
    rows: list[Row] = []
    columns: list[str] = []
    for subject in subjects:
        answer = run_query(connection, query, {"subject": subject.subject_id, "paper": own})
        columns = answer.columns
        rows += answer.rows
    return Result(columns, rows)


def _head(subjects: Sequence[Subject]) -> Html:
    if len(subjects) == 1:
        return Html(f"<header><h1>{name(subjects[0].name)}</h1></header>")
    return Html(f"<header><h1>{len(subjects)} subjects</h1></header>")


def _foot() -> Html:
    now = datetime.now(UTC)
    words = f"Made by gaussmeter {__version__} on {now:%Y-%m-%d at %H:%M} UTC, from its warehouse alone."
    return Html(f"<footer>{text(words)}</footer>")
