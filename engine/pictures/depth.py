"""How sigma changes with depth, role by role (Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.pictures.picture import Picture, finish, labels
from engine.pictures.theme import series_colours

_WIDTH, _HEIGHT = 420, 240


@dataclass(frozen=True, slots=True)
class AtDepth:
    """Sigma of one role in one layer.

    Attributes:
        subject: whose weights they are.
        part: tower or stage; "" for a plain model.
        role: of the matrices.
        layer: index in the stack.
        std: mean of their standard deviations.
    """

    subject: str
    part: str
    role: str
    layer: int
    std: float


def depth(name: str, title: str, points: Sequence[AtDepth], unit: str = "standard deviation σ") -> Picture:
    """Draw sigma against the layer, a line a role, a panel for each subject and part.

    Args:
        name: a word for the picture.
        title: what it shows.
        points: in any order.
        unit: what the axis up says.
    """
    import altair as alt

    panels = labels(_panel(p) for p in points)
    words = labels(p.role for p in points)
    rows = [
        {"panel": panels[_panel(p)], "role": words[p.role], "layer": p.layer, "std": p.std}
        for p in sorted(points, key=lambda p: p.layer)
    ]
    roles = sorted(words.values())
    layers = alt.X(
        field="layer",
        type="quantitative",
        title="layer",
        scale=alt.Scale(nice=False, padding=8),
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
    )
    sigma = alt.Y(
        field="std",
        type="quantitative",
        title=unit,
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(format=".4~g"),
    )
    colours = alt.Scale(domain=roles, range=series_colours(len(roles)))
    base = alt.Chart().encode(
        x=layers,
        y=sigma,
        color=alt.Color(field="role", type="nominal", scale=colours, title="role"),
        tooltip=[
            alt.Tooltip(field="role", type="nominal"),
            alt.Tooltip(field="layer", type="ordinal"),
            alt.Tooltip(field="std", type="quantitative"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.6, opacity=0.85)
    dots = base.mark_point(size=12, filled=True, opacity=0.9)
    chart = alt.layer(lines, dots).properties(width=_WIDTH, height=_HEIGHT)
    header = alt.Header(title=None, labelFontSize=12, labelLimit=_WIDTH)
    facet = alt.Facet(field="panel", type="nominal", sort=list(panels.values()), header=header)
    whole = chart.facet(facet=facet, columns=2, data=alt.NamedData("points")).resolve_scale(
        x="independent", y="independent"
    )
    note = ["Each point is the mean over the matrices of one role in one layer."]
    return finish(name, title, note, whole, {"points": rows})


def _panel(point: AtDepth) -> str:
    return f"{point.subject}, {point.part}" if point.part else point.subject
