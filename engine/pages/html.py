"""The few pieces that pages are made of. Every function escapes what it is given, but for `Html`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NewType

from engine.nouns.cells import cell
from engine.nouns.words import printable, shortened

Html = NewType("Html", str)
"""Text that is HTML already: made by these functions, or drawn from what was escaped."""

_LONGEST = 90  # characters of a name that is shown; a pointer on it shows more
_LONGEST_HINT = 1000
_TAG = re.compile(r"<[^>]+>")
_ID = re.compile(r'\b(id="|url\(#|href="#)')


def text(words: Any) -> Html:
    """Any text, to be read and no more."""
    return Html(html.escape(printable(str(words))))


def name(words: str, most: int = _LONGEST) -> Html:
    """A name, its middle left out when it is long."""
    if len(words) <= most:
        return text(words)
    return Html(
        f'<span title="{text(shortened(words, _LONGEST_HINT))}">{text(shortened(words, most))}</span>'
    )


def join(parts: Iterable[Html]) -> Html:
    """Pieces one after the other."""
    return Html("\n".join(parts))


def paragraph(words: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{text(words)}</p>")


def section(title: str, *parts: Html, level: int = 2, anchor: str = "") -> Html:
    """A heading and what belongs to it.

    Args:
        title: the heading.
        parts: what follows.
        level: of the heading.
        anchor: a word of our own to link to; "" for none.
    """
    mark = f' id="{text(anchor)}"' if anchor else ""
    return Html(f"<section{mark}>\n<h{level}>{name(title)}</h{level}>\n{join(parts)}\n</section>")


def details(summary: str, *parts: Html) -> Html:
    """Something that is shown when it is asked for."""
    return Html(f"<details>\n<summary>{text(summary)}</summary>\n{join(parts)}\n</details>")


def facts(pairs: Mapping[str, Any]) -> Html:
    """Words and what they stand for; those without a value are left out."""
    told = ((key, value) for key, value in pairs.items() if value not in (None, "", [], ()))
    lines = (f"<dt>{text(key)}</dt><dd>{_value(value, key)}</dd>" for key, value in told)
    return Html(f"<dl>{''.join(lines)}</dl>")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    filtered: bool = False,
    wrapped: Sequence[str] = (),
) -> Html:
    """A table that sorts itself by the column whose heading is pressed.

    Args:
        columns: their names; those that are empty in every row are left out.
        rows: one value a column.
        filtered: whether there is a field to look for words in.
        wrapped: columns of words of our own, which take several lines where they are long.
    """
    shown = [k for k in range(len(columns)) if any(row[k] not in (None, "") for row in rows)]
    if not rows or not shown:
        return Html('<p class="none">none</p>')
    head = "".join(_heading(columns[k], [row[k] for row in rows]) for k in shown)
    body = "\n".join(
        "<tr>" + "".join(_cell(row[k], columns[k], columns[k] in wrapped) for k in shown) + "</tr>"
        for row in rows
    )
    field = '<input type="search" class="filter" placeholder="filter rows" aria-label="filter rows">'
    return Html(
        f'{field if filtered else ""}<div class="scroll"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _heading(column: str, values: Sequence[Any]) -> str:
    kind = ' class="number"' if any(_is_number(v) for v in values) else ""
    return f'<th{kind} scope="col"><button type="button">{text(column.replace("_", " "))}</button></th>'


def _cell(value: Any, column: str, wrapped: bool) -> str:
    if _is_number(value):
        return f'<td class="number" data-v="{float(value)!r}">{text(cell(value, column))}</td>'
    if wrapped:
        return f'<td class="words">{text(cell(value, column))}</td>'
    return f"<td>{_value(value, column)}</td>"


def _value(value: Any, column: str) -> Html:
    return name(value) if isinstance(value, str) else text(cell(value, column))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def figure(svg: str, what: str, number: int) -> Html:
    """A picture that was drawn as SVG.

    Args:
        svg: the drawing; names in it must have been escaped by who drew it.
        what: says what it shows to who cannot see it.
        number: of the picture, different for each of a page, so that no two have one id.
    """
    own = _TAG.sub(lambda tag: _ID.sub(rf"\1p{number}-", tag[0]), svg)
    start = own.index("<svg")
    return Html(f'<figure class="scroll" role="img" aria-label="{text(what)}">{own[start:].strip()}</figure>')
