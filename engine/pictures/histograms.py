"""Histograms side by side, each with its fitted normal (Figs. 1, 4, 7 to 26), or two subjects overlaid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.pictures.picture import Picture, finish, label, labels
from engine.pictures.sheet import Group, Place, Sheet, Words, lay_out
from engine.pictures.theme import FIT, INK, NOTE, RULE, SHAPES, series_colours
from engine.statistics.histogram import Histogram

if TYPE_CHECKING:
    import altair as alt

LINEAR_REACH, LOG_REACH = 4.5, 10.0
"""Standard deviations on either side of the mean that are drawn."""

_PEAK = 1 / math.sqrt(2 * math.pi)  # of the normal's density
_FOOT, _HEAD = -7, 2.5  # the ends of a log axis, as powers of ten
_CURVE = 49  # points of a fitted normal
_TALLEST = 1.05  # of a linear axis, where 1 is the peak
_WORDS = {"inverted_t": "inverted T"}


@dataclass(frozen=True, slots=True)
class Series:
    """One histogram of a panel.

    Attributes:
        key: what its colour stands for: a shape class, or a subject.
        counts: in units of value.
    """

    key: str
    counts: Histogram


@dataclass(frozen=True, slots=True)
class Panel:
    """One small picture.

    Attributes:
        row: heading of its row; "" if panels follow each other.
        column: heading of its column, or its own.
        mean: of the values; the middle of the axis.
        std: their standard deviation, the unit of the axis.
        series: what is drawn; none where the values have no spread.
        note: a few words in its corner.
    """

    row: str
    column: str
    mean: float
    std: float
    series: tuple[Series, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Block:
    """Panels that stand together.

    Attributes:
        heading: over all of them; "" for none.
        by_row: whether panels stand in rows and columns, or follow each other.
        panels: in order.
    """

    heading: str
    by_row: bool
    panels: tuple[Panel, ...]


def histograms(
    name: str,
    title: str,
    blocks: Sequence[Block],
    *,
    log: bool = False,
    overlay: bool = False,
    columns: int = 4,
) -> Picture:
    """Draw histograms, in standard deviations from the mean.

    Args:
        name: a word for the picture.
        title: what it shows.
        blocks: one below the other.
        log: density on a logarithmic axis, and a wider reach, to see the tails.
        overlay: colours stand for subjects, and no normal is drawn.
        columns: panels in a row, where they follow each other.
    """
    words = _words(s.key for b in blocks for p in b.panels for s in p.series)
    frame = _Frame(log, overlay, words)
    groups = [
        Group(b.heading, tuple(p.row for p in b.panels), tuple(p.column for p in b.panels)) for b in blocks
    ]
    sheet = lay_out(groups, [b.by_row for b in blocks], columns, before=24 if log else 0)
    panels = [p for b in blocks for p in b.panels]
    data: dict[str, list[dict[str, Any]]] = {"bins": [], "over": [], "fits": [], "notes": []}
    for number, (panel, place) in enumerate(zip(panels, sheet.places, strict=True)):
        _add(data, number, panel, place, frame)
    data |= _surroundings(sheet, frame)
    chart = _chart(sheet, frame, _colours(words, overlay))
    return finish(name, title, _how_to_read(log, overlay), chart, data)


def _words(keys: Iterable[str]) -> dict[str, str]:
    """What the legend says for the key of a series."""
    words = {key: _WORDS.get(key, key) for key in keys}
    shown = labels(words.values())
    return {key: shown[word] for key, word in words.items()}


def _colours(words: Mapping[str, str], overlay: bool) -> dict[str, str]:
    """Colour of each word of the legend."""
    if overlay:
        return dict(zip(words.values(), series_colours(len(words)), strict=True))
    return {words[key]: colour for key, colour in SHAPES.items() if key in words}


def _how_to_read(log: bool, overlay: bool) -> list[str]:
    unit = "Across: distance from the mean, in standard deviations (σ)"
    if overlay:
        unit += " of the first subject (filled)"
    up = "density per σ, on a logarithmic axis" if log else "density, each panel to its own peak"
    lines = [f"{unit}. Up: {up}."]
    if not overlay:
        lines.append("Dashed: the normal of the same mean and standard deviation.")
    return lines


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all panels have in common; see `histograms`. `words` are those of the legend, by key."""

    log: bool
    overlay: bool
    words: Mapping[str, str]

    @property
    def reach(self) -> float:
        return LOG_REACH if self.log else LINEAR_REACH

    @property
    def ticks_across(self) -> list[tuple[float, str]]:
        far = 8 if self.log else 3
        return [(-far, f"−{far}σ"), (0, "0"), (far, f"{far}σ")]

    @property
    def ticks_up(self) -> list[tuple[float, str]]:
        """As powers of ten."""
        return [(-6, "1e-6"), (-3, "1e-3"), (0, "1")] if self.log else []

    def across(self, place: Place, z: float) -> float:
        """Where a distance from the mean lies on the sheet."""
        share = min(max((z + self.reach) / (2 * self.reach), 0.0), 1.0)
        return round(place.left + place.width * share, 1)

    def up(self, place: Place, density: float, top: float) -> float:
        """Where a density lies on the sheet; `top` is that of the panel's peak."""
        return self.at(place, math.log10(max(density, 10.0**_FOOT)) if self.log else density / top)

    def at(self, place: Place, height: float) -> float:
        """Where a height of the axis lies on the sheet."""
        share = (height - _FOOT) / (_HEAD - _FOOT) if self.log else height / _TALLEST
        return round(place.top + place.height * (1 - min(max(share, 0.0), 1.0)), 1)


def _add(
    data: Mapping[str, list[dict[str, Any]]], number: int, panel: Panel, place: Place, frame: _Frame
) -> None:
    """Add the data of a panel: the outline of each histogram, the normal, and a note."""
    data["notes"].append({"text": label(panel.note, 40), "x": place.left + 3, "y": place.top + 8})
    tops = [s.counts.density.max(initial=0.0) * panel.std for s in panel.series]
    top = max([*tops, 0.0 if frame.overlay else _PEAK]) or 1.0
    foot = place.top + place.height
    for order, series in enumerate(panel.series):
        z = ((series.counts.edges - panel.mean) / panel.std).tolist()
        densities = (series.counts.density * panel.std).tolist()
        of = {"k": number, "of": frame.words[series.key]}
        for x, density in zip(z, [*densities, densities[-1]], strict=True):
            row = {**of, "x": frame.across(place, x), "y": frame.up(place, density, top), "y2": foot}
            data["over" if order else "bins"].append(row)
    if panel.series and not frame.overlay:
        data["fits"] += _fit(number, place, top, frame)


def _fit(number: int, place: Place, top: float, frame: _Frame) -> Iterator[dict[str, Any]]:
    """The data of a fitted normal."""
    for step in range(_CURVE):
        x = frame.reach * (2 * step / (_CURVE - 1) - 1)
        density = _PEAK * math.exp(-x * x / 2)
        if density > 10.0**_FOOT:
            yield {"k": number, "x": frame.across(place, x), "y": frame.up(place, density, top)}


def _surroundings(sheet: Sheet, frame: _Frame) -> dict[str, list[dict[str, Any]]]:
    """The data of what is around the panels: frames, headings, ticks."""

    def words(some: Sequence[Words]) -> list[dict[str, Any]]:
        return [{"text": w.text, "x": w.x, "y": w.y} for w in some]

    frames = [{"x": p.left, "y": p.top, "x2": p.left + p.width, "y2": p.top + p.height} for p in sheet.places]
    below = [
        {"text": text, "x": frame.across(p, z), "y": p.top + p.height}
        for p in sheet.bottoms
        for z, text in frame.ticks_across
    ]
    before = [
        {"text": text, "x": p.left, "y": frame.at(p, height)}
        for p in sheet.lefts
        for height, text in frame.ticks_up
    ]
    named = {"titles": words(sheet.titles), "heads": words(sheet.heads), "sides": words(sheet.sides)}
    return {"frames": frames, "below": below, "before": before, **named}


def _chart(sheet: Sheet, frame: _Frame, colours: dict[str, str]) -> alt.LayerChart:
    import altair as alt

    def on(data: str) -> alt.Chart:
        x = alt.X(field="x", type="quantitative", scale=None, axis=None)
        y = alt.Y(field="y", type="quantitative", scale=None, axis=None)
        base: alt.Chart = alt.Chart(alt.NamedData(data)).encode(x=x, y=y)
        return base

    def text(data: str, **options: Any) -> alt.Chart:
        marks: alt.Chart = on(data).mark_text(**options).encode(text=alt.Text(field="text", type="nominal"))
        return marks

    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    key = alt.Legend(title="subject" if frame.overlay else "shape", orient="top", direction="horizontal")
    colour = alt.Color(field="of", type="nominal", scale=scale, legend=key)
    each, foot, right = alt.Detail(field="k"), alt.Y2(field="y2"), alt.X2(field="x2")
    step = on("bins").mark_area(interpolate="step-after", orient="vertical", opacity=0.75)
    over = on("over").mark_line(interpolate="step-after", strokeWidth=1.2)
    fits = on("fits").mark_line(strokeDash=[3, 2], strokeWidth=1, color=FIT)
    layers = [
        step.encode(y2=foot, detail=each, color=colour),
        over.encode(detail=each, color=colour) if frame.overlay else fits.encode(detail=each),
        on("frames").mark_rect(fill=None, stroke=RULE).encode(x2=right, y2=foot),
        on("below").mark_tick(orient="vertical", size=4, yOffset=2, color=RULE),
        on("before").mark_tick(orient="horizontal", size=4, xOffset=-2, color=RULE),
        text("below", baseline="top", dy=6, fontSize=10, color=INK),
        text("before", align="right", dx=-6, fontSize=9, color=INK),
        text("notes", align="left", fontSize=8.5, color=NOTE),
        text("heads", fontSize=9.5, color=INK),
        text("sides", align="right", fontSize=10, color=INK),
        text("titles", align="left", fontSize=12, fontWeight=600, color=INK),
    ]
    view = alt.ViewBackground(stroke=None)
    chart: alt.LayerChart = alt.LayerChart(layer=layers, view=view, width=sheet.width, height=sheet.height)
    return chart
