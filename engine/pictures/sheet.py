"""A sheet of small panels: where each stands, with its heading, its frame and its ticks.

Laid out here and drawn as a few marks, because a facet for each of hundreds of panels takes longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.pictures.picture import label, labels

_SMALL = (104, 44)  # width and height of a panel of a grid
_ACROSS, _TALL = 640, 84  # width of panels that follow each other, taken together; their height
_GAP, _WIDE_GAP = 6, 16
_HEAD, _TICKS, _BELOW = 16, 18, 20  # room for headings of columns and blocks, ticks, and between blocks
_LETTER = 5.0  # width of a letter of a heading, about


@dataclass(frozen=True, slots=True)
class Place:
    """Where a panel stands, in points.

    Attributes:
        left: of its frame.
        top: of its frame.
        width: of its frame.
        height: of its frame.
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Words:
    """Text on the sheet.

    Attributes:
        text: what it says.
        x: where it begins, ends or has its middle.
        y: its middle.
    """

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Sheet:
    """A layout.

    Attributes:
        places: of the panels, in their order.
        titles: of blocks; they begin at their x.
        heads: above panels, in the middle.
        sides: before rows; they end at their x.
        bottoms: places of panels that have ticks below.
        lefts: places of panels that have ticks before them.
        width: of all.
        height: of all.
    """

    places: tuple[Place, ...]
    titles: tuple[Words, ...]
    heads: tuple[Words, ...]
    sides: tuple[Words, ...]
    bottoms: tuple[Place, ...]
    lefts: tuple[Place, ...]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Group:
    """Panels that stand together.

    Attributes:
        title: over all of them; "" for none.
        rows: heading of the row of each panel; "" where panels follow each other.
        columns: heading of the column of each, or its own.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]


def lay_out(groups: Sequence[Group], by_row: Sequence[bool], columns: int, before: float) -> Sheet:
    """Say where everything stands.

    Args:
        groups: one below the other.
        by_row: of each, whether its panels stand in rows and columns, or follow each other.
        columns: panels in a row, where they follow each other.
        before: room for ticks before panels.
    """
    parts, top = [], 0.0
    for group, in_rows in zip(groups, by_row, strict=True):
        part = _grid(group, top, before) if in_rows else _flow(group, top, columns)
        parts.append(part)
        top = part.height + _BELOW

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(item for part in parts for item in getattr(part, name))

    return Sheet(
        places=all_of("places"),
        titles=all_of("titles"),
        heads=all_of("heads"),
        sides=all_of("sides"),
        bottoms=all_of("bottoms"),
        lefts=all_of("lefts"),
        width=max((p.width for p in parts), default=0.0),
        height=max((p.height for p in parts), default=0.0),
    )


def _title(group: Group, top: float) -> tuple[Words, ...]:
    return (Words(label(group.title), 0, top + _HEAD / 2),) if group.title else ()


def _grid(group: Group, top: float, before: float) -> Sheet:
    """A row for each row heading, a column for each column heading."""
    width, height = _SMALL
    sides, heads = labels(group.rows, 40), labels(group.columns, 48)
    titles = _title(group, top)
    start = top + _HEAD * (1 + len(titles))
    x = {head: k * (width + _GAP) for k, head in enumerate(heads)}
    y = {side: start + k * (height + _GAP) for k, side in enumerate(sides)}
    places = tuple(
        Place(x[head], y[side], width, height) for side, head in zip(group.rows, group.columns, strict=True)
    )
    last = [*y.values()][-1]
    end = max(place.left for place in places) + width
    return Sheet(
        places,
        titles,
        tuple(Words(_fitting(heads[h], width + _GAP), x[h] + width / 2, start - 8) for h in heads),
        tuple(Words(sides[s], -8 - before, y[s] + height / 2) for s in sides),
        bottoms=tuple(Place(left, last, width, height) for left in x.values()),
        lefts=tuple(Place(0, t, width, height) for t in y.values()),
        width=end,
        height=last + height + _TICKS,
    )


def _flow(group: Group, top: float, columns: int) -> Sheet:
    """Panels one after the other, each with its own heading."""
    width, height = _ACROSS / columns - 12, _TALL
    heads = labels(group.columns, 48)
    titles = _title(group, top)
    start = top + _HEAD * len(titles)
    places, words = [], []
    for k, head in enumerate(group.columns):
        left = k % columns * (width + _WIDE_GAP)
        y = start + _HEAD + k // columns * (height + _HEAD + _TICKS)
        places.append(Place(left, y, width, height))
        words.append(Words(_fitting(heads[head], width + 10), left + width / 2, y - 8))
    return Sheet(
        tuple(places),
        titles,
        tuple(words),
        (),
        bottoms=tuple(places),
        lefts=tuple(p for p in places if p.left == 0),
        width=max((p.left for p in places), default=0.0) + width,
        height=max((p.top for p in places), default=start) + height + _TICKS,
    )


def _fitting(words: str, width: float) -> str:
    """As much of a heading as there is room for."""
    return label(words, max(int(width / _LETTER), 4))
