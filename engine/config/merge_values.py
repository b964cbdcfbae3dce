"""Values of merge parameters: a number, a gradient over the layers, or either by names of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from engine.nouns.merging import Parameter, Setting

Plain = Setting | tuple[float, ...]
"""A value for all layers, or a gradient: numbers at even distances from the first layer to the last."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A value for some tensors.

    Attributes:
        filter: what a tensor's name must contain; None or `*` for all.
        value: its value.
    """

    filter: str | None
    value: Plain

    def applies(self, tensor: str) -> bool:
        """Whether it is for a tensor."""
        return self.filter in (None, "*") or str(self.filter) in tensor


Value = Plain | tuple[Condition, ...]
"""A parameter's value; of conditions, the first that applies."""

_EXPECTED = "a list of numbers, or a list of {filter, value}"


def read_value(raw: Any, parameter: Parameter, where: str) -> tuple[Value | None, list[str]]:
    """Read a value.

    Args:
        raw: plain data.
        parameter: whose value it is.
        where: its place in the configuration, for faults.

    Returns:
        the value and no faults, or None and every fault.
    """
    if isinstance(raw, dict):
        raw = [raw]
    if not (isinstance(raw, list) and any(isinstance(r, dict) for r in raw)):
        return _plain(raw, parameter, where)
    conditions, faults = [], []
    for i, entry in enumerate(raw):
        found, wrong = _condition(entry, parameter, f"{where}.{i}")
        faults += wrong
        if found is not None:
            conditions.append(found)
    return (None, faults) if faults else (tuple(conditions), [])


def _plain(raw: Any, parameter: Parameter, where: str) -> tuple[Plain | None, list[str]]:
    if isinstance(raw, list):
        return _gradient(raw, parameter, where)
    if isinstance(raw, dict):
        return None, [f"{where}: expected a value, {_EXPECTED}"]
    fault = parameter.fault_of(raw)
    return (None, [f"{where}: {_short(fault)}"]) if fault else (raw, [])


def _gradient(raw: list[Any], parameter: Parameter, where: str) -> tuple[Plain | None, list[str]]:
    if parameter.kind is not float:
        return None, [f"{where}: only numbers change from layer to layer, {parameter.name} does not"]
    if not raw:
        return None, [f"{where}: is an empty list"]
    faults = [f"{where}.{i}: {_short(said)}" for i, r in enumerate(raw) if (said := parameter.fault_of(r))]
    return (None, faults) if faults else (tuple(map(float, raw)), [])


def _condition(raw: Any, parameter: Parameter, where: str) -> tuple[Condition | None, list[str]]:
    if not isinstance(raw, dict):
        return None, [f"{where}: expected filter and value, found {_short(repr(raw))}"]
    faults = list(_unknown(raw, ("filter", "value"), where))
    pattern = raw.get("filter")
    if pattern is not None and (not isinstance(pattern, str) or not pattern):
        faults.append(f"{where}.filter: expected a part of a tensor's name, found {_short(repr(pattern))}")
    if "value" not in raw:
        return None, [*faults, f"{where}.value: is missing"]
    value, wrong = _plain(raw["value"], parameter, f"{where}.value")
    faults += wrong
    return (None, faults) if faults or value is None else (Condition(pattern, value), [])


def _unknown(raw: dict[Any, Any], known: tuple[str, ...], where: str) -> Iterator[str]:
    for key in raw:
        if key not in known:
            yield f"{where}.{_short(str(key))}: {unknown('key', key, known)}"


def unknown(kind: str, name: object, known: tuple[str, ...]) -> str:
    """Say that there is no such thing, and name the nearest."""
    near = get_close_matches(str(name)[:100], known, 1, 0.5)
    return f"there is no such {kind}" + (f"; did you mean {near[0]!r}?" if near else "")


def _short(text: str, most: int = 150) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def value_for(value: Value, tensor: str, position: float) -> Setting | None:
    """The value for a tensor.

    Args:
        value: a parameter's value.
        tensor: the tensor's name.
        position: where it lies between the first layer, 0, and the last, 1.

    Returns:
        None if no condition applies.
    """
    if not isinstance(value, tuple):
        return value
    gradient: list[float] = []
    for entry in value:
        if not isinstance(entry, Condition):
            gradient.append(entry)
        elif entry.applies(tensor):
            return value_for(entry.value, tensor, position)
    return _between(gradient, position) if gradient else None


def _between(gradient: list[float], position: float) -> float:
    place = position * (len(gradient) - 1)
    before = min(int(place), len(gradient) - 1)
    after = min(before + 1, len(gradient) - 1)
    share = place - before
    return gradient[before] if not share else (1 - share) * gradient[before] + share * gradient[after]
