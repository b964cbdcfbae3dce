"""The words that signatures of methods are written in, and how a schema is read from them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from engine.nouns.merging import Need, Parameter, Schema, Setting, Stretch

Block = NDArray[np.floating[Any]]
"""(m,) float32 or float64."""

Blocks = Sequence[Block]
"""Blocks of one size and dtype, one for each model, in the order of the configuration."""


@dataclass(frozen=True, slots=True)
class Within:
    """The range of a number.

    Attributes:
        low: the least.
        high: the greatest.
        endless: whether it may be infinite.
    """

    low: float
    high: float = math.inf
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """How many models there must be."""

    least: int
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class PerModel:
    """Marks a parameter of which every model has its own."""


Each = float | Sequence[float]
Weight = Annotated[Each, PerModel()]
Share = Annotated[Each, PerModel(), Within(0, 1)]
Fraction = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0, endless=True)]
Sigma = Annotated[Sequence[float], Need.SIGMA]
Band = Annotated[Sequence[tuple[float, float]], Need.BAND]
Inner = Annotated[NDArray[np.float64], Need.INNER]
TaskInner = Annotated[NDArray[np.float64], Need.TASK_INNER]
Where = Annotated[Stretch, Need.STRETCH]
Rows = Annotated[Stretch, Need.STRETCH, Need.ROWS]
Two = Annotated[Blocks, Count(2)]
Single = Annotated[Blocks, Count(1, 1)]


def schema_of(name: str, function: Callable[..., Block]) -> Schema:
    """Read a schema from a signature.

    Args:
        name: of the method.
        function: takes `base` if it needs one, `models`, and by keyword its parameters and, called `sigma`,
            `band`, `inner`, `task_inner` or `stretch`, what it must know of the whole tensor. A name that is
            a word of Python ends in `_`, which configurations leave out.

    Raises:
        TypeError: the signature says something else.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters: list[Parameter] = []
    needs: set[Need] = set()
    for keyword, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        found = {mark for mark in get_args(hints[keyword]) if isinstance(mark, Need)}
        needs |= found
        if not found:
            parameters.append(_parameter(keyword, hints[keyword], parameter.default))
        elif keyword not in found and keyword != "stretch":
            raise TypeError(f"{name}: {keyword} is what {' and '.join(found)} are")
    count = _mark(hints["models"], Count) or Count(1)
    return Schema(name, tuple(parameters), frozenset(needs), "base" in hints, count.least, count.most)


def _parameter(keyword: str, hint: Any, default: Any) -> Parameter:
    per_model = _mark(hint, PerModel) is not None
    kind = float if per_model or get_args(hint) else hint
    if kind not in (bool, int, float):
        raise TypeError(f"{keyword} is neither a number nor a truth")
    given: Setting | None = None if default is inspect.Parameter.empty else default
    limits = _mark(hint, Within) or Within(-math.inf)
    name, ends = keyword.rstrip("_"), (limits.low, limits.high, limits.endless)
    return Parameter(name, keyword, kind, per_model, given, *ends)


def _mark(hint: Any, kind: type[Any]) -> Any:
    return next((mark for mark in get_args(hint) if isinstance(mark, kind)), None)
