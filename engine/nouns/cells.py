"""One value as a reader sees it, on a terminal or on a page."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from engine.nouns.words import printable

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_LABELS = {"layer", "subject_id", "id", "tensor_id", "ordinal", "code"}


def nbytes(value: float) -> str:
    """A number of bytes with its unit."""
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def cell(value: Any, column: str = "") -> str:
    """One value for reading: four significant digits, thousands separated."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column == "bytes":
        return nbytes(float(value))
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, int):
        return str(value) if column in _LABELS else f"{value:,}"
    if isinstance(value, (float, Decimal)):
        return _real(float(value))
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, (list, tuple)):
        return " x ".join(cell(v) for v in value) if value else "scalar"
    return printable(str(value))


def _real(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.1f}"
    return f"{value:.3e}"
