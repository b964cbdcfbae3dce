"""From subjects of the warehouse to pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError
from engine.pictures.curves import Reached, curves
from engine.pictures.depth import AtDepth, depth
from engine.pictures.gaps import Gap, gaps
from engine.pictures.heat import Cell, kurtosis_map, order_map, ratio_map
from engine.pictures.histograms import histograms
from engine.pictures.picture import Picture, distinct
from engine.plan import Selection
from engine.verbs.panels import layer_blocks, matrices_of, named_blocks, overlaid_blocks
from engine.warehouse.queries import Value, named_queries, run_query
from engine.warehouse.rows import Connection


@dataclass(frozen=True, slots=True)
class Subject:
    """What is drawn.

    Attributes:
        subject_id: its number.
        name: its name.
        kind: checkpoint, delta, adapter, merge, simulation or observation.
    """

    subject_id: int
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class How:
    """How it is drawn.

    Attributes:
        selection: which tensors, of histograms.
        bins: of a histogram; None for as many as suit the panels.
        log: whether densities are on a logarithmic axis.
        given: parameters of the query behind `scores`.
    """

    selection: Selection
    bins: int | None = None
    log: bool = False
    given: Mapping[str, Value] | None = None


def draw(connection: Connection, name: str, subjects: Sequence[Subject], how: How) -> Picture:
    """Draw a picture.

    Args:
        connection: open for reading.
        name: one of `PICTURES`.
        subjects: as many as the picture takes.
        how: details.

    Raises:
        ConfigError: the picture takes other subjects, or there is nothing to draw.
    """
    kind = PICTURES[name]
    if not kind.least <= len(subjects) <= kind.most:
        raise ConfigError(f"the picture {name} is of {kind.takes}, not of {len(subjects)}")
    return kind.draw(connection, subjects, how)


def _histograms(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    (subject,) = subjects
    matrices = _some(matrices_of(connection, subject.subject_id, how.selection), subject.name)
    blocks = layer_blocks(connection, matrices, bins=how.bins, log=how.log)
    title = f"{subject.name}: how its {_values(subject)} are distributed"
    return histograms("histograms", title, blocks, log=how.log)


def _simulation(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    (subject,) = subjects
    if subject.kind != "simulation":
        raise ConfigError(f"{subject.name!r} is a {subject.kind}, not a simulation")
    matrices = _some(matrices_of(connection, subject.subject_id, how.selection), subject.name)
    blocks = named_blocks(
        connection, matrices, bins=how.bins, log=how.log, title=lambda m: m.name.replace("noise-", "noise ")
    )
    title = "Derivation of weight distributions: sparse weights under growing noise (Fig. 7)"
    return histograms("simulation", title, blocks, log=how.log)


def _overlay(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    a, b = subjects
    ours, theirs = (matrices_of(connection, s.subject_id, how.selection) for s in subjects)
    one, other = _words(subjects)
    blocks = overlaid_blocks(connection, ours, theirs, (one, other), bins=how.bins, log=how.log)
    if not blocks:
        raise ConfigError(f"no matrix of {a.name!r} has the name of one of {b.name!r}")
    return histograms("overlay", f"{one} and {other}", blocks, log=how.log, overlay=True)


def _sigma(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    points = [
        AtDepth(r["subject"], r["part"], r["role"], r["layer"], r["std"])
        for r in _roles(connection, subjects)
        if r["std"] is not None
    ]
    title = f"Standard deviation by depth: {_names(subjects)}"
    return depth("sigma", title, _some(points, _names(subjects)))


def _kurtosis(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    title = f"Kurtosis by layer and role: {_names(subjects)}"
    return kurtosis_map(title, _cells(connection, subjects, "kurtosis"))


def _ratio(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    title = f"Share within 3σ by layer and role: {_names(subjects)}"
    return ratio_map(title, _cells(connection, subjects, "ratio"))


def _cells(connection: Connection, subjects: Sequence[Subject], column: str) -> Sequence[Cell]:
    cells = [
        Cell(r["subject"], r["part"], r["role"], r["layer"], r[column])
        for r in _roles(connection, subjects)
        if r[column] is not None
    ]
    return _some(cells, _names(subjects))


def _roles(connection: Connection, subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    return [r for records in _asked(connection, "picture_roles", subjects) for r in records]


def _asked(connection: Connection, query: str, subjects: Sequence[Subject]) -> Iterator[list[dict[str, Any]]]:
    """What a query says of each subject, whose name there is that of no other."""
    for subject, word in zip(subjects, _words(subjects), strict=True):
        answer = run_query(connection, named_queries("verbs")[query], {"subject_id": subject.subject_id})
        yield [{**record, "subject": word} for record in answer.records()]


def _words(subjects: Sequence[Subject]) -> list[str]:
    return _apart([(s.subject_id, s.name) for s in subjects])


def _apart(subjects: Sequence[tuple[int, str]]) -> list[str]:
    """Names of subjects, given as (number, name); with the number where several have one name."""
    numbers: dict[str, set[int]] = {}
    for number, name in subjects:
        numbers.setdefault(name, set()).add(number)
    return [f"{name} ({number})" if len(numbers[name]) > 1 else name for number, name in subjects]


def _iid(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    cells = [
        Cell(
            r["subject"],
            ", ".join(filter(None, [r["part"], f"sigmas of {lines}"])),
            r["role"],
            r["layer"],
            r[lines],
        )
        for records in _asked(connection, "picture_iid", subjects)
        for lines in ("rows", "columns")
        for r in records
        if r[lines] is not None
    ]
    if not cells:
        raise ConfigError(f"there is nothing to draw: {_names(subjects)} was not scanned with --iid")
    return order_map(f"Do rows and columns differ? {', '.join(distinct(c.subject for c in cells))}", cells)


def _scores(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    query = named_queries("paper")["fig5"]
    given = dict(how.given or {})
    if subjects:
        given["baseline"] = subjects[0].subject_id
    rows = run_query(connection, query, given).records()
    rows = [r for r in rows if r["std_gap"] is not None and r["score_gap"] is not None]
    points = [
        Gap(
            baseline,
            subject,
            r["method"] or "",
            f"rank {r['r']}" if r["r"] is not None else subject,
            r["std_gap"],
            r["score_gap"],
            r["correlation"],
        )
        for r, baseline, subject in zip(
            rows,
            _apart([(r["baseline_id"], r["baseline"]) for r in rows]),
            _apart([(r["subject_id"], r["subject"]) for r in rows]),
            strict=True,
        )
    ]
    if not points:
        raise ConfigError("there is nothing to draw: no two differences with a matrix in common have scores")
    return gaps("Gap in sigma against gap in score (Fig. 5)", points)


def _learning(connection: Connection, subjects: Sequence[Subject], how: How) -> Picture:
    query = named_queries("verbs")["picture_runs"]
    numbers = json.dumps([s.subject_id for s in subjects]) if subjects else None
    rows = run_query(connection, query, {"subject_ids": numbers}).rows
    if not rows:
        raise ConfigError("there is nothing to draw: the warehouse has no metrics of such runs")
    return curves("Learning curves", [Reached(*row) for row in rows])


def _some(found: Sequence[Any], name: str) -> Sequence[Any]:
    """Make sure that there is something to draw."""
    if not found:
        raise ConfigError(
            f"there is nothing to draw: {name} has no such matrices in layers, or none selected"
        )
    return found


def _names(subjects: Sequence[Subject]) -> str:
    return ", ".join(_words(subjects))


def _values(subject: Subject) -> str:
    return {"delta": "changes", "adapter": "changes", "simulation": "values"}.get(subject.kind, "weights")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A picture that can be asked for, and how many subjects it takes."""

    draw: Callable[[Connection, Sequence[Subject], How], Picture]
    takes: str
    least: int = 1
    most: int = 1


PICTURES: dict[str, _Kind] = {
    "histograms": _Kind(_histograms, "one subject"),
    "overlay": _Kind(_overlay, "two subjects", 2, 2),
    "sigma": _Kind(_sigma, "one to ten subjects", 1, 10),
    "kurtosis": _Kind(_kurtosis, "one to ten subjects", 1, 10),
    "ratio": _Kind(_ratio, "one to ten subjects", 1, 10),
    "iid": _Kind(_iid, "one to ten subjects", 1, 10),
    "scores": _Kind(_scores, "a baseline, or of all of them in turn", 0, 1),
    "simulation": _Kind(_simulation, "one simulation"),
    "learning": _Kind(_learning, "the runs of some subjects, or of all", 0, 100),
}
"""Everything that can be drawn, by name."""
