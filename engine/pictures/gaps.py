"""Do subjects whose sigmas are close score alike (Fig. 5)?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.pictures.picture import Picture, distinct, finish, label, labels
from engine.pictures.theme import NOTE, series_colours

_WIDTH, _HEIGHT = 340, 240


@dataclass(frozen=True, slots=True)
class Gap:
    """One subject beside a baseline.

    Attributes:
        baseline: what it is measured from.
        subject: its name.
        method: how it was adapted; "" if that is not known.
        note: the words beside its point, such as the rank.
        std_gap: mean of |sigma_1 - sigma_2| over the matrices that both have.
        score_gap: |score_1 - score_2|.
        correlation: of the two gaps over the baseline's subjects; None if it is not known.
    """

    baseline: str
    subject: str
    method: str
    note: str
    std_gap: float
    score_gap: float
    correlation: float | None


def gaps(title: str, points: Sequence[Gap]) -> Picture:
    """Draw the gap in sigma against the gap in score, a panel for each baseline."""
    import altair as alt

    baselines = labels((p.baseline for p in points), 40)
    methods, subjects = labels(_method(p) for p in points), labels(p.subject for p in points)
    rows = [
        {
            "panel": _panel(baselines[p.baseline], p.correlation),
            "method": methods[_method(p)],
            "subject": subjects[p.subject],
            "note": label(p.note, 24),
            "std_gap": 1e4 * p.std_gap,
            "score_gap": p.score_gap,
        }
        for p in points
    ]
    colour = alt.Color(
        field="method",
        type="nominal",
        title="method",
        scale=alt.Scale(domain=sorted(methods.values()), range=series_colours(len(methods))),
    )
    base = alt.Chart().encode(
        x=alt.X(
            field="score_gap", type="quantitative", title="gap in score, points", scale=alt.Scale(zero=True)
        ),
        y=alt.Y(
            field="std_gap",
            type="quantitative",
            title="mean |σ1 − σ2|, in units of 1e-4",
            scale=alt.Scale(zero=True),
        ),
    )
    dots = base.mark_point(filled=True, size=60, opacity=0.9).encode(
        color=colour,
        tooltip=[alt.Tooltip(field=f, type="nominal") for f in ("subject", "method")],
    )
    words = base.mark_text(align="left", dx=7, dy=-5, fontSize=10, color=NOTE).encode(
        text=alt.Text(field="note", type="nominal")
    )
    panels = distinct(str(r["panel"]) for r in rows)
    header = alt.Header(title=None, labelFontSize=12, labelLimit=_WIDTH)
    facet = alt.Facet(field="panel", type="nominal", sort=panels, header=header)
    chart = alt.layer(dots, words).properties(width=_WIDTH, height=_HEIGHT)
    whole = chart.facet(facet=facet, columns=2, data=alt.NamedData("points")).resolve_axis(
        x="independent", y="independent"
    )
    note = ["Each point is a subject; the paper expects close sigmas to go with close scores."]
    return finish("scores", title, note, whole, {"points": rows})


def _method(gap: Gap) -> str:
    return gap.method or "not known"


def _panel(baseline: str, correlation: float | None) -> str:
    known = "" if correlation is None else f", correlation {correlation:.2f}"
    return f"from {baseline}{known}"
