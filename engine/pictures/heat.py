"""Heat maps: one number of every role in every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.pictures.picture import Picture, finish, labels
from engine.pictures.theme import PAPER

if TYPE_CHECKING:
    import altair as alt

GAUSSIAN_KURTOSIS, GAUSSIAN_RATIO = 2.829, 0.9973
"""Of a Gaussian cut at 3 sigma: its kurtosis, and the share that is kept."""

_FROM_NOTHING = ("#f5f2ee", "#fdcf9c", "#f4943f", "#cc5a0e", "#7f2704")
_CELL, _ROW = 14, 20
_LEAST_WIDTH = 400


@dataclass(frozen=True, slots=True)
class Cell:
    """One number.

    Attributes:
        subject: whose it is.
        part: tower or stage; "" for a plain model.
        role: of the matrices.
        layer: index in the stack.
        value: mean over the matrices.
    """

    subject: str
    part: str
    role: str
    layer: int
    value: float


def kurtosis_map(title: str, cells: Sequence[Cell]) -> Picture:
    """Draw the kurtosis within 3 sigma."""
    note = f"Within 3σ, mean over the matrices; a Gaussian has {GAUSSIAN_KURTOSIS:.2f}, heavier tails more."
    return _map("kurtosis", title, note, cells, _Scale("kurtosis", ".2f", GAUSSIAN_KURTOSIS, 0.5, 2.0))


def ratio_map(title: str, cells: Sequence[Cell]) -> Picture:
    """Draw the share of the elements within 3 sigma."""
    note = f"Share of the elements within 3σ, mean over the matrices; a Gaussian has {GAUSSIAN_RATIO:.2%}."
    return _map("ratio", title, note, cells, _Scale("share", ".2%", GAUSSIAN_RATIO, 0.005, 0.02, 1.0))


def order_map(title: str, cells: Sequence[Cell]) -> Picture:
    """Draw how much the sigmas of rows and columns vary beyond chance; `part` says whose."""
    note = "Standard deviation of the sigmas beyond what chance explains, over sigma; i.i.d. elements have 0."
    return _map("iid", title, note, cells, _Scale("beyond chance", ".1%", 0.0, 0.02, 0.5, start=0.0))


@dataclass(frozen=True, slots=True)
class _Scale:
    """What colours stand for.

    Attributes:
        what: a word for the number.
        form: how it is written.
        middle: what a Gaussian has; neither blue nor orange.
        least: the colours reach at least so far from there, so that chance looks like chance.
        most: and at the most so far, so that one cell does not make all others pale.
        end: the largest number that there can be.
        start: the least.
    """

    what: str
    form: str
    middle: float
    least: float
    most: float
    end: float = math.inf
    start: float = -math.inf

    def domain(self, cells: Sequence[Cell]) -> list[float]:
        far = max((abs(c.value - self.middle) for c in cells), default=0.0)
        reach = min(max(far, self.least), self.most)
        return [max(self.middle - reach, self.start), min(self.middle + reach, self.end)]


def _map(name: str, title: str, note: str, cells: Sequence[Cell], scale: _Scale) -> Picture:
    import altair as alt

    panels = labels(_panel(c) for c in cells)
    roles = labels(c.role for c in cells)
    data, charts = {}, []
    for number, (panel, shown) in enumerate(panels.items()):
        here = [c for c in cells if _panel(c) == panel]
        data[f"cells{number}"] = [{"role": roles[c.role], "layer": c.layer, "value": c.value} for c in here]
        charts.append(_one(f"cells{number}", shown, here, scale, scale.domain(cells)))
    whole = alt.vconcat(*charts, spacing=22).resolve_scale(color="shared")
    return finish(name, title, [note], whole, data)


def _colours(scale: _Scale) -> dict[str, Any]:
    """To both sides of what a Gaussian has, or from nothing on."""
    if scale.start == scale.middle:
        return {"range": list(_FROM_NOTHING)}
    return {"scheme": "blueorange", "domainMid": scale.middle}


def _panel(cell: Cell) -> str:
    return f"{cell.subject}, {cell.part}" if cell.part else cell.subject


def _one(data: str, panel: str, cells: Sequence[Cell], scale: _Scale, domain: list[float]) -> alt.Chart:
    import altair as alt

    layers = sorted({c.layer for c in cells})
    step = 5 if len(layers) > 16 else 1
    colour = alt.Color(
        field="value",
        type="quantitative",
        title=scale.what,
        scale=alt.Scale(domain=domain, clamp=True, **_colours(scale)),
        legend=alt.Legend(format=scale.form, gradientLength=100),
    )
    across = alt.X(
        field="layer",
        type="ordinal",
        title="layer",
        axis=alt.Axis(labelAngle=0, values=layers[::step], ticks=False, domain=False),
    )
    up = alt.Y(
        field="role", type="nominal", title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=140)
    )
    width = max(_CELL * len(layers), _LEAST_WIDTH)
    marks = alt.Chart(alt.NamedData(data)).mark_rect(stroke=PAPER, strokeWidth=0.6)
    chart: alt.Chart = marks.encode(
        x=across,
        y=up,
        color=colour,
        tooltip=[
            alt.Tooltip(field="role", type="nominal"),
            alt.Tooltip(field="layer", type="ordinal"),
            alt.Tooltip(field="value", type="quantitative", format=scale.form, title=scale.what),
        ],
    ).properties(width=width, height=alt.Step(_ROW), title=alt.TitleParams(panel, fontSize=12))
    return chart
