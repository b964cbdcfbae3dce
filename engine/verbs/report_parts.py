"""The parts of a report that are about one subject."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from engine.nouns.defaults import MAX_MAGNITUDE
from engine.pages.html import Html, details, facts, join, paragraph, section, table, text
from engine.pictures.histograms import histograms
from engine.plan import Selection
from engine.verbs.drawing import How, Subject
from engine.verbs.gallery import Gallery
from engine.verbs.panels import matrices_of, named_blocks
from engine.verbs.report_order import order
from engine.warehouse.queries import Value, named_queries, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection

_DEPARTURES = 12
_MOST_NOT_COUNTED = 1000
_HOW = How(Selection())


def of_subject(connection: Connection, subject: Subject, gallery: Gallery, title: str) -> Html:
    """Everything about one subject.

    Args:
        connection: open for reading.
        subject: whose it is.
        gallery: keeps the places of pictures.
        title: what stands above it.
    """

    def ask(query: str, **given: Value) -> Result:
        queries = named_queries("verbs")
        return run_query(connection, queries[query], {"subject_id": subject.subject_id, **given})

    parts: list[Callable[[], Html]] = [
        lambda: _what_it_is(ask("report_subject").records()[0]),
        lambda: _damage(ask("check", max_magnitude=MAX_MAGNITUDE), ask("report_not_counted")),
        lambda: _learnt(subject, ask),
        lambda: _shapes(connection, subject, gallery, ask),
        lambda: _departures(connection, subject, gallery, ask),
        lambda: order(connection, subject, gallery, ask),
        lambda: _provenance(connection, subject, gallery, ask),
        lambda: _tensors(ask("report_tensors")),
    ]
    anchor = f"subject-{subject.subject_id}"
    return section(title, *(part() for part in parts), anchor=anchor)


Ask = Callable[..., Result]


def answer(result: Result, *, filtered: bool = False) -> Html:
    """The answer to a query as a table."""
    return table(result.columns, result.rows, filtered=filtered)


def _what_it_is(row: Mapping[str, Any]) -> Html:
    others = f"of them {row['matrices']:,} matrices and {row['not_counted']:,} not counted"
    told = {
        "kind": row["kind"],
        "place": row["uri"],
        "format": row["format"],
        "revision": row["revision"],
        "parameters": row["parameters"],
        "tensors": f"{row['tensors']:,}, {others}",
        "dtypes": row["dtypes"],
        "bytes": row["bytes"],
        "files": row["files"],
        "fingerprint": row["fingerprint"][:16],
        "counted": f"{row['finished_at']:%Y-%m-%d %H:%M} UTC, in {row['seconds']:.1f} s",
        "counted by": f"gaussmeter {row['engine_version']}",
    }
    return facts(told)


def _damage(findings: Result, not_counted: Result) -> Html:
    good = paragraph("check finds nothing wrong with the values.")
    parts = [answer(findings, filtered=len(findings.rows) > 20) if findings.rows else good]
    if not_counted.rows:
        shown = not_counted.rows[:_MOST_NOT_COUNTED]
        count = len(not_counted.rows)
        summary = "one tensor is not counted" if count == 1 else f"{count:,} tensors are not counted"
        parts.append(details(summary, table(not_counted.columns, shown)))
    return section("Damage", *parts, level=3)


def _learnt(subject: Subject, ask: Ask) -> Html:
    """What a difference or an adapter has learnt."""
    if subject.kind not in ("delta", "adapter"):
        return Html("")
    note = (
        "std is the sigma of what was learnt, relative std that over the sigma of the base's tensor, "
        "changed ratio the share of elements that differ."
    )
    return section(
        "What was learnt",
        paragraph(note),
        answer(ask("report_delta")),
        details("The tensors that changed most, for their size", answer(ask("report_changed"))),
        level=3,
    )


def _shapes(connection: Connection, subject: Subject, gallery: Gallery, ask: Ask) -> Html:
    pictures = [gallery.draw(connection, name, [subject], _HOW) for name in ("kurtosis", "ratio", "sigma")]
    main = "simulation" if subject.kind == "simulation" else "histograms"
    grid = gallery.draw(connection, main, [subject], _HOW)
    if not grid:
        return section("Distributions", paragraph("There are no matrices."), level=3)
    by_layer = grid if main == "simulation" else details("Histograms by layer and module", grid)
    return section("Distributions", answer(ask("report_shapes")), *pictures, by_layer, level=3)


def _departures(connection: Connection, subject: Subject, gallery: Gallery, ask: Ask) -> Html:
    result = ask("report_departures", limit=_DEPARTURES)
    if not result.rows:
        return Html("")
    names = [str(row[0]) for row in result.rows]
    by_name = {m.name: m for m in matrices_of(connection, subject.subject_id, Selection()) if m.name in names}
    ranked = [by_name[name] for name in names if name in by_name]
    blocks = named_blocks(connection, ranked, bins=None, log=False)
    title = f"{subject.name}: the matrices furthest from a Gaussian"
    note = (
        "By the mean of three ranks: Kolmogorov-Smirnov distance to the fitted normal, width of the middle "
        "half, and kurtosis within 3 sigma (2.83 for a Gaussian)."
    )
    picture = gallery.hang(histograms("departures", title, blocks, columns=3))
    return section("Departures from a Gaussian", paragraph(note), answer(result), picture, level=3)


def _provenance(connection: Connection, subject: Subject, gallery: Gallery, ask: Ask) -> Html:
    """What it was made of and with, what was made of it, and its runs."""
    spec = json.loads(ask("report_subject").records()[0]["spec"])
    made = {key.replace("_", " "): _plain(value) for key, value in spec.items() if _says_something(value)}
    related, runs = ask("report_related"), ask("report_runs")
    parts = [facts(made)]
    if related.rows:
        parts.append(answer(related))
    if runs.rows:
        parts += [paragraph("Runs"), answer(runs), gallery.draw(connection, "learning", [subject], _HOW)]
    return section("Provenance", *parts, level=3)


def _says_something(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_says_something, value))
    return value not in (None, "", {})


def _plain(value: Any) -> str:
    """A value of a specification as text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _tensors(result: Result) -> Html:
    return details(f"All {len(result.rows):,} counted tensors", answer(result, filtered=True))


def overview(links: Mapping[str, str], result: Result) -> Html:
    """A list of the subjects, and the line of each in Table 1."""
    items = "".join(f'<li><a href="#{text(anchor)}">{text(name)}</a></li>' for anchor, name in links.items())
    note = (
        "Within 3 sigma, means over the matrices (Table 1). Kurtosis is Pearson's: 3 for a Gaussian, and "
        "2.83 for one that is cut at 3 sigma. paper: what the paper says of the same model."
    )
    listing = Html(f"<nav><ul>{items}</ul></nav>") if len(links) > 1 else Html("")
    return join([listing, paragraph(note), answer(result)])
