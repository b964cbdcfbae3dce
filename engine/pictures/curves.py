"""Learning curves: what runs reached, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.pictures.picture import Picture, finish, labels
from engine.pictures.theme import series_colours

_WIDTH, _HEIGHT = 380, 220


@dataclass(frozen=True, slots=True)
class Reached:
    """One value of one metric of one run.

    Attributes:
        run: its name, with its number where several have one name.
        metric: what was measured.
        step: when.
        value: what it was.
    """

    run: str
    metric: str
    step: int
    value: float


def curves(title: str, points: Sequence[Reached]) -> Picture:
    """Draw each metric against the step, a line a run, a panel for each metric."""
    import altair as alt

    runs, metrics = labels(p.run for p in points), labels(p.metric for p in points)
    rows = [
        {"run": runs[p.run], "metric": metrics[p.metric], "step": p.step, "value": p.value}
        for p in sorted(points, key=lambda p: p.step)
    ]
    base = alt.Chart().encode(
        x=alt.X(
            field="step",
            type="quantitative",
            title="step",
            scale=alt.Scale(nice=False, padding=8),
            axis=alt.Axis(grid=False, tickMinStep=1),
        ),
        y=alt.Y(field="value", type="quantitative", title="value", scale=alt.Scale(zero=False)),
        color=alt.Color(
            field="run",
            type="nominal",
            title="run",
            scale=alt.Scale(domain=sorted(runs.values()), range=series_colours(len(runs))),
        ),
        tooltip=[
            alt.Tooltip(field="run", type="nominal"),
            alt.Tooltip(field="step", type="quantitative"),
            alt.Tooltip(field="value", type="quantitative"),
        ],
    )
    lines = alt.layer(base.mark_line(strokeWidth=1.6), base.mark_point(size=14, filled=True))
    header = alt.Header(title=None, labelFontSize=12, labelLimit=_WIDTH)
    facet = alt.Facet(field="metric", type="nominal", sort=sorted(metrics.values()), header=header)
    whole = (
        lines.properties(width=_WIDTH, height=_HEIGHT)
        .facet(facet=facet, columns=2, data=alt.NamedData("points"))
        .resolve_scale(x="independent", y="independent")
    )
    note = ["Each panel is a metric on its own axis."]
    return finish("learning", title, note, whole, {"points": rows})
