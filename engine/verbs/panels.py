"""Histograms of a subject's matrices, from their counts: panels by layer and module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from engine.nouns.prefixes import match_names
from engine.nouns.words import printable
from engine.pictures.histograms import LINEAR_REACH, LOG_REACH, Block, Panel, Series
from engine.plan import Selection
from engine.sketch import Sketch
from engine.statistics.histogram import Histogram, between_values, histogram
from engine.statistics.moments import NOTHING, Moments, combine_moments
from engine.warehouse.queries import named_queries, run_query
from engine.warehouse.rows import Connection
from engine.warehouse.sketches import read_sketches

_AT_ONCE = 32  # tensors whose counts are held at once
_MOST_COLUMNS = 16
_BINS, _FEW_BINS, _MANY = 81, 49, 100  # odd, so that the mean lies in a bin; fewer where panels are many
_MOST_OUTSIDE = 24


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix, as `sql/verbs/picture_matrices.sql` has it."""

    tensor_id: int
    name: str
    part: str
    layer: int | None
    role: str
    module: str
    coding: str
    finite: float
    mean: float
    m2: float
    shape_class: str


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices that are drawn as one panel."""

    row: str
    column: str
    matrices: tuple[Matrix, ...]

    @property
    def moments(self) -> Moments:
        """Count, mean and second central sum of all their elements."""
        parts = (Moments(m.finite, m.mean, m.m2, 0.0, 0.0) for m in self.matrices)
        return reduce(combine_moments, parts, NOTHING)

    @property
    def shape_class(self) -> str:
        """That of most of them."""
        return Counter(m.shape_class for m in self.matrices).most_common(1)[0][0]


def matrices_of(connection: Connection, subject_id: int, selection: Selection) -> list[Matrix]:
    """The matrices of a subject whose names are selected, in file order."""
    query = named_queries("verbs")["picture_matrices"]
    rows = run_query(connection, query, {"subject_id": subject_id}).rows
    return [m for m in (Matrix(*row) for row in rows) if m.name in selection]


def layer_blocks(
    connection: Connection, matrices: Sequence[Matrix], *, bins: int | None, log: bool
) -> tuple[Block, ...]:
    """Panels by layer and module, a block for each part, and one of what lies outside of the layers."""
    groups = _blocks_of_groups(matrices)
    drawn = _panels(connection, [g for _, _, some in groups for g in some], bins=bins, log=log)
    return tuple(Block(heading, rows, tuple(next(drawn) for _ in some)) for heading, rows, some in groups)


def named_blocks(
    connection: Connection,
    matrices: Sequence[Matrix],
    *,
    bins: int | None,
    log: bool,
    title: Callable[[Matrix], str] = lambda m: m.name,
) -> tuple[Block, ...]:
    """A panel for each matrix, one after the other."""
    groups = [Group("", title(m), (m,)) for m in matrices]
    return (Block("", False, tuple(_panels(connection, groups, bins=bins, log=log))),)


def overlaid_blocks(
    connection: Connection,
    ours: Sequence[Matrix],
    theirs: Sequence[Matrix],
    keys: tuple[str, str],
    *,
    bins: int | None,
    log: bool,
) -> tuple[Block, ...]:
    """Panels as in `layer_blocks`, of the matrices that two subjects have in common, matched by name."""
    by_name = {m.name: m for m in theirs}
    partners = match_names([m.name for m in ours], list(by_name))
    groups = _blocks_of_groups([m for m in ours if m.name in partners])
    flat = [g for _, _, some in groups for g in some]
    others = [Group(g.row, g.column, tuple(by_name[partners[m.name]] for m in g.matrices)) for g in flat]
    first = _panels(connection, flat, bins=bins, log=log, key=keys[0])
    second = _panels(connection, others, bins=bins, log=log, key=keys[1])
    drawn = (_on_top(a, b) for a, b in zip(first, second, strict=True))
    return tuple(Block(heading, rows, tuple(next(drawn) for _ in some)) for heading, rows, some in groups)


def _on_top(a: Panel, b: Panel) -> Panel:
    notes = ", ".join(dict.fromkeys([a.note, b.note]))
    note = f"σ × {b.std / a.std:.3f}" if a.std > 0 and b.std > 0 else notes
    base = a if a.series else b
    return Panel(a.row, a.column, base.mean, base.std, (*a.series, *b.series), note)


def _blocks_of_groups(matrices: Sequence[Matrix]) -> list[tuple[str, bool, list[Group]]]:
    """Heading, whether there are rows, and groups of each block."""
    parts = list(dict.fromkeys(m.part for m in matrices if m.layer is not None))
    blocks: list[tuple[str, bool, list[Group]]] = []
    for part in parts:
        here = [m for m in matrices if m.part == part and m.layer is not None]
        blocks.append(_block(printable(part), _by_layer(here)))
    outside = [m for m in matrices if m.layer is None]
    if outside:
        largest = sorted(outside, key=lambda m: -m.finite)[:_MOST_OUTSIDE]
        shown = [m for m in outside if m in largest]
        heading = "outside of the layers" if parts else ""
        if len(shown) < len(outside):
            heading += f" ({len(shown)} largest of {len(outside):,})"
        blocks.append((heading.strip(), False, [Group("", m.name, (m,)) for m in shown]))
    return blocks


def _block(part: str, groups: list[Group]) -> tuple[str, bool, list[Group]]:
    """A single module of many layers needs no column of its own."""
    columns = {g.column for g in groups}
    if len(columns) > 1:
        return part, True, groups
    heading = ", ".join(filter(None, [part, *columns]))
    return heading, False, [Group("", g.row, g.matrices) for g in groups]


def _by_layer(matrices: Sequence[Matrix]) -> list[Group]:
    by_role = len({m.module for m in matrices}) > _MOST_COLUMNS
    groups: dict[tuple[int, str], list[Matrix]] = {}
    for m in matrices:
        groups.setdefault((m.layer or 0, m.role if by_role else m.module), []).append(m)
    order = sorted(groups, key=lambda key: key[0])
    return [Group(f"layer {layer}", column, tuple(groups[layer, column])) for layer, column in order]


def _panels(
    connection: Connection, groups: Sequence[Group], *, bins: int | None, log: bool, key: str | None = None
) -> Iterator[Panel]:
    """Draw up the panels of groups, in order."""
    if bins is None:
        bins = _FEW_BINS if len(groups) > _MANY else _BINS
    frames = [_Frame(g, bins, LOG_REACH if log else LINEAR_REACH) for g in groups]
    _fill(connection, frames)
    for group, frame in zip(groups, frames, strict=True):
        series = (Series(key or group.shape_class, frame.counts),) if frame.counts else ()
        yield Panel(group.row, group.column, frame.mean, frame.std, series, _note(group, frame))


def _note(group: Group, frame: _Frame) -> str:
    if not frame.std > 0:
        return "no spread"
    several = f" ({len(group.matrices)})" if len(group.matrices) > 1 else ""
    return f"σ {frame.std:.3g}{several}"


class _Frame:
    """The histogram of a group as it grows."""

    def __init__(self, group: Group, bins: int, reach: float) -> None:
        moments = group.moments
        self.mean, self.std = moments.mean, moments.std
        self.ids = [m.tensor_id for m in group.matrices]
        self.counts: Histogram | None = None
        self._edges = None
        if self.std > 0:
            edges = self.mean + self.std * np.linspace(-reach, reach, bins + 1)
            edges = between_values(edges, group.matrices[0].coding)
            self._edges = edges if len(edges) > 1 else None

    def add(self, sketch: Sketch) -> None:
        """Count the elements of one matrix."""
        if self._edges is None:
            return
        new = histogram([sketch], self._edges)
        old = self.counts
        self.counts = new if old is None else Histogram(new.edges, old.n + new.n, old.total + new.total)


def _fill(connection: Connection, frames: Sequence[_Frame]) -> None:
    """Read the counts of all tensors once, some at a time."""
    frame_of = {i: frame for frame in frames for i in frame.ids}
    ids = sorted(frame_of)
    for start in range(0, len(ids), _AT_ONCE):
        some: Mapping[int, Any] = read_sketches(connection, ids[start : start + _AT_ONCE])
        for tensor_id, sketch in some.items():
            frame_of[tensor_id].add(sketch)
