"""What all pictures look like: two inks and one set of colours that read on light and on dark."""

from __future__ import annotations

from typing import Any

INK = "#333333"
FAINT = "#8a8f98"
RULE = "#d5d9df"

SHAPES = {
    "gaussian": "#4c78a8",
    "sharp": "#e8871e",
    "inverted_t": "#d64550",
    "line": "#8e44ad",
    "not known": "#8a8f98",
}
"""Colour of each shape class."""

SERIES = (
    "#4c78a8", "#e8871e", "#3a9d5d", "#d64550", "#8e6bbf",
    "#9c6b4e", "#d66ba0", "#7f7f7f", "#b5a42f", "#35a7b5",
)  # fmt: skip
"""Colours of other things, one after the other."""

FIT = "#1b1e23"
"""The fitted normal."""

PAPER = "#ffffff"
"""What is behind everything."""

NOTE = "#555b63"
"""Words inside of a panel."""

_FONT = "Helvetica, Arial, sans-serif"

CONFIG: dict[str, Any] = {
    "aria": False,  # a picture says what it is as a whole
    "background": PAPER,
    "font": _FONT,
    "padding": 12,
    "title": {
        "anchor": "start", "color": INK, "fontSize": 15, "fontWeight": 600, "offset": 12,
        "subtitleColor": FAINT, "subtitleFontSize": 11, "subtitlePadding": 5,
    },
    "axis": {
        "domainColor": RULE, "gridColor": RULE, "gridOpacity": 0.6, "tickColor": RULE, "labelColor": INK,
        "titleColor": INK, "labelFontSize": 10, "titleFontSize": 11,
        "titleFontWeight": 400, "titlePadding": 8,
    },
    "legend": {
        "labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": 400, "labelLimit": 320,
    },
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 10, "titleFontSize": 11},
    "view": {"stroke": RULE},
}  # fmt: skip


ON_DARK = {
    INK: "#e8eaed", FAINT: "#9aa0a8", RULE: "#444a52", FIT: "#f2f3f5", NOTE: "#c3c8cf", PAPER: "#15181c",
}  # fmt: skip
"""What takes the place of each ink where the background is dark."""


def series_colours(count: int) -> list[str]:
    """So many colours, over again when there are more than ten."""
    return [SERIES[i % len(SERIES)] for i in range(count)]
