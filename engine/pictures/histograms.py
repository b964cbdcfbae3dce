"""Histograms side by side, each with its fitted normal (Figs. 1, 4, 7 to 26), or two subjects overlaid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.pictures.picture import Picture, distinct, finish, label
from engine.pictures.theme import FIT, NOTE, SHAPES, series_colours
from engine.statistics.histogram import Histogram

if TYPE_CHECKING:
    import altair as alt

LINEAR_REACH, LOG_REACH = 4.5, 10.0
"""Standard deviations on either side of the mean that are drawn."""

_PEAK = 1 / math.sqrt(2 * math.pi)  # of the normal's density
_FOOT, _HEAD = -7, 2.5  # the ends of a log axis, as powers of ten
_CURVE = 41  # points of a fitted normal
_SMALL = (96, 44)  # width and height of a panel of a grid
_ACROSS, _TALL = 640, 84  # width of panels that follow each other, taken together; their height
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
    import altair as alt

    keys = distinct(s.key for b in blocks for p in b.panels for s in p.series)
    frame = _Frame(log, overlay, _colours(keys, overlay))
    data, parts = {}, []
    for number, block in enumerate(blocks):
        data[f"block{number}"] = [r for p in block.panels for r in _rows(p, frame)]
        parts.append(_grid(f"block{number}", block, frame, number == 0, columns))
    whole = alt.vconcat(*parts, spacing=26).resolve_scale(color="independent")  # only one has a legend
    return finish(name, title, _how_to_read(log, overlay), whole, data)


def _colours(keys: Sequence[str], overlay: bool) -> dict[str, str]:
    """Colour of each word of the legend."""
    if overlay:
        return dict(zip(map(_said, keys), series_colours(len(keys)), strict=True))
    return {_said(key): colour for key, colour in SHAPES.items() if key in keys}


def _how_to_read(log: bool, overlay: bool) -> list[str]:
    unit = "Across: distance from the mean, in standard deviations (σ)"
    if overlay:
        unit += " of the first subject (filled)"
    up = "density per σ, on a logarithmic axis" if log else "density, each panel to its own peak"
    lines = [f"{unit}. Up: {up}."]
    if not overlay:
        lines.append("Dashed: the normal of the same mean and standard deviation.")
    return lines


def _rows(panel: Panel, frame: _Frame) -> list[dict[str, Any]]:
    """The data of a panel: the outline of each histogram, the normal, and the words in its corner."""
    place = {"row": label(panel.row, 40), "column": label(panel.column, 48)}
    tops = [s.counts.density.max(initial=0.0) * panel.std for s in panel.series]
    top = max([*tops, *([] if frame.overlay else [_PEAK])]) or 1.0
    rows: list[dict[str, Any]] = []
    for number, series in enumerate(panel.series):
        x = (series.counts.edges - panel.mean) / panel.std
        y = [frame.height(d * panel.std, top) for d in series.counts.density.tolist()]
        outline = zip(x.tolist(), [*y, y[-1] if y else 0.0], strict=True)
        of = {**place, "of": _said(series.key), **({"on_top": number > 0} if frame.overlay else {})}
        rows += [{**of, "x": round(a, 3), "y": round(b, 4)} for a, b in outline]
    if panel.series and not frame.overlay:
        for z in np.linspace(-frame.reach, frame.reach, _CURVE).tolist():
            density = _PEAK * math.exp(-z * z / 2)
            if density > 10.0**_FOOT:
                rows.append({**place, "x": round(z, 3), "fit": round(frame.height(density, top), 4)})
    rows.append({**place, "note": label(panel.note, 40)})
    return rows


def _said(key: str) -> str:
    return label(_WORDS.get(key, key))


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all panels have in common; see `histograms`."""

    log: bool
    overlay: bool
    colours: dict[str, str]

    @property
    def reach(self) -> float:
        return LOG_REACH if self.log else LINEAR_REACH

    def height(self, density: float, top: float) -> float:
        """Where a density lies on the axis."""
        return math.log10(max(density, 10.0**_FOOT)) if self.log else density / top

    def domain(self) -> list[float]:
        return [_FOOT, _HEAD] if self.log else [0, 1.05]


def _grid(data: str, block: Block, frame: _Frame, legend: bool, columns: int) -> alt.FacetChart:
    import altair as alt

    width, height = _SMALL if block.by_row else (_ACROSS // columns - 12, _TALL)
    panel = _panel(frame, legend).properties(width=width, height=height)
    order = distinct(label(p.column, 48) for p in block.panels)
    header = alt.Header(title=None, labelLimit=width + 10, labelPadding=3)
    if not block.by_row:
        column = alt.Facet(field="column", type="nominal", sort=order, header=header)
        chart = panel.facet(facet=column, columns=columns, data=alt.NamedData(data), spacing=16)
    else:
        rows = distinct(label(p.row, 40) for p in block.panels)
        side = alt.Header(title=None, labelAngle=0, labelAlign="left", labelPadding=4)
        chart = panel.facet(
            row=alt.Row(field="row", type="nominal", sort=rows, header=side),
            column=alt.Column(field="column", type="nominal", sort=order, header=header),
            data=alt.NamedData(data),
            spacing=4,
        )
    if block.heading:
        chart = chart.properties(title=alt.TitleParams(label(block.heading), fontSize=12))
    return chart


def _panel(frame: _Frame, legend: bool) -> alt.LayerChart:
    import altair as alt

    x, tall, left = _axes(frame)
    y = alt.Y(field="y", type="quantitative", scale=tall, axis=left)
    scale = alt.Scale(domain=list(frame.colours), range=list(frame.colours.values()))
    title = "subject" if frame.overlay else "shape"
    key = alt.Legend(title=title, orient="top", direction="horizontal") if legend else None
    colour = alt.Color(field="of", type="nominal", scale=scale, legend=key)
    base = alt.Chart()
    bins = base.transform_filter("isValid(datum.y)").encode(x=x, y=y, color=colour)
    area = bins.mark_area(interpolate="step-after", clip=True, opacity=0.75, line=False).encode(
        y2=alt.Y2Datum(frame.domain()[0])
    )
    if frame.overlay:
        line = bins.mark_line(interpolate="step-after", strokeWidth=1.2, clip=True)
        layers = [
            area.transform_filter("datum.on_top === false"),
            line.transform_filter("datum.on_top === true"),
        ]
    else:
        fit = base.mark_line(strokeDash=[3, 2], strokeWidth=1, color=FIT, clip=True)
        curve = alt.Y(field="fit", type="quantitative", scale=tall, axis=left)
        layers = [
            area,
            fit.transform_filter("isValid(datum.fit)").encode(x=x, y=curve),
        ]
    words = base.mark_text(align="left", baseline="top", fontSize=8.5, dx=3, dy=3, color=NOTE)
    corner = words.transform_filter("isValid(datum.note)").encode(
        x=alt.value(0), y=alt.value(0), text=alt.Text(field="note", type="nominal")
    )
    panel: alt.LayerChart = alt.LayerChart(layer=[*layers, corner])
    return panel


def _axes(frame: _Frame) -> tuple[alt.X, alt.Scale, alt.Axis | None]:
    """The axis across; scale and axis up, which only a logarithmic one has."""
    import altair as alt

    far = 8 if frame.log else 3
    marks = [-far, 0, far]
    across = alt.Axis(
        title=None,
        values=marks,
        labelExpr="replace(datum.value + (datum.value ? 'σ' : ''), '-', '−')",
        grid=False,
    )
    x = alt.X(
        field="x",
        type="quantitative",
        scale=alt.Scale(domain=[-frame.reach, frame.reach], nice=False),
        axis=across,
    )
    up = (
        alt.Axis(
            title=None, values=[-6, -3, 0], labelExpr="datum.value ? '1e' + datum.value : '1'", grid=False
        )
        if frame.log
        else None
    )
    return x, alt.Scale(domain=frame.domain(), nice=False, zero=False), up
