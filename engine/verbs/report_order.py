"""The part of a report about rows, columns and neighbours: are a subject's matrices i.i.d.?"""

from __future__ import annotations

from collections.abc import Callable

from engine.pages.html import Html, details, paragraph, section, table
from engine.plan import Selection
from engine.verbs.drawing import How, Subject
from engine.verbs.gallery import Gallery
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection

_NOTE = (
    "Are the elements of a matrix draws of one distribution, whatever their places? Each number has limits "
    "that 95 of 100 matrices keep to whose elements are shuffled; the verdict names those that more matrices "
    "of a role are outside of than chance explains. lag: correlation of neighbours, median over matrices. "
    "sigma cv: how much the sigmas of rows (columns) vary beyond chance, relative to sigma. outside: how "
    "many matrices."
)


def order(connection: Connection, subject: Subject, gallery: Gallery, ask: Callable[..., Result]) -> Html:
    """What `scan --iid` has found; nothing, where that was not asked for.

    Args:
        connection: open for reading.
        subject: whose it is.
        gallery: keeps the place of a picture.
        ask: runs a query of `sql/verbs` about the subject.
    """
    roles, missing = ask("report_iid"), ask("report_iid_missing")
    if not roles.rows and not missing.rows:
        return Html("")
    outside = ask("report_iid_tensors")
    matrices = sum(row["matrices"] for row in roles.records())
    parts = [paragraph(_NOTE), table(roles.columns, roles.rows, wrapped=("verdict",))]
    parts.append(gallery.draw(connection, "iid", [subject], How(Selection())))
    if outside.rows:
        summary = f"{len(outside.rows):,} of {matrices:,} matrices are outside of a limit"
        parts.append(
            details(summary, table(outside.columns, outside.rows, filtered=True, wrapped=("outside",)))
        )
    elif matrices:
        parts.append(paragraph(f"All {matrices:,} matrices keep to all limits."))
    if missing.rows:
        count = len(missing.rows)
        summary = "one matrix was not looked at" if count == 1 else f"{count:,} matrices were not looked at"
        parts.append(details(summary, table(missing.columns, missing.rows)))
    return section("i.i.d.", *parts, level=3)
