"""What a merge method asks for: parameters, and numbers of whole tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

Setting = bool | int | float
_LARGEST = 1e18


def _hint(value: object) -> str:
    """How a number is to be written that YAML takes for text, such as 1e-3."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    digits = repr(number)
    return f", which is text to YAML; write {digits if '.' in digits else digits.replace('e', '.0e')}"


class Need(StrEnum):
    """What a method must know of a whole tensor before it can merge a block of it.

    A task vector is model - base in float32 (float64 by option), element by element.
    """

    SIGMA = "sigma"
    """For each model, the population standard deviation of its task vector's finite elements."""

    BAND = "band"
    """For each model, the smallest and the largest magnitude of its task vector that are kept."""

    INNER = "inner"
    """Inner products of the tensors, the base first: (n + 1, n + 1) float64."""

    TASK_INNER = "task_inner"
    """Inner products of the task vectors: (n, n) float64."""

    STRETCH = "stretch"
    """Where the block lies in its tensor."""

    ROWS = "rows"
    """Likewise, and it must be whole rows."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where a block lies.

    Attributes:
        tensor: the tensor's name.
        start: index of the block's first element in the tensor.
        columns: elements of a row: the last dimension, 1 for a tensor without any.
    """

    tensor: str
    start: int
    columns: int


@dataclass(frozen=True, slots=True)
class Roles:
    """Which operand of a merge is what.

    Attributes:
        base: the base's number; None for a method without one.
        models: the models'.
    """

    base: int | None
    models: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        name: as a configuration spells it.
        keyword: as the function spells it.
        kind: `bool`, `int` or `float`.
        per_model: whether every model has its own.
        default: None where it must be given.
        low: the least value.
        high: the greatest.
        endless: whether it may be infinite.
    """

    name: str
    keyword: str
    kind: type[bool] | type[int] | type[float]
    per_model: bool
    default: Setting | None
    low: float = -math.inf
    high: float = math.inf
    endless: bool = False

    def fault_of(self, value: object) -> str | None:
        """What is wrong with a value, None if nothing."""
        if self.kind is bool:
            return None if isinstance(value, bool) else f"expected true or false, found {value!r}"
        kinds = (int,) if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = "a whole number" if self.kind is int else "a number"
            return f"expected {wanted}, found {value!r}{_hint(value)}"
        if not self.low <= value <= self.high:
            return f"expected {self._range()}, found {value!r}"
        if abs(value) > _LARGEST and not (self.endless and math.isinf(value)):
            return f"expected a number of at most {_LARGEST:g}, found {value!r}"
        return None

    def _range(self) -> str:
        if math.isinf(self.high):
            return f"at least {self.low:g}" if not math.isinf(self.low) else "a number"
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a method's signature says.

    Attributes:
        name: of the method.
        parameters: in the order of the signature.
        needs: what must be known of the whole tensor, or of the block.
        base: whether there must be a base.
        least: how many models there must be, beside the base.
        most: how many there may be.
    """

    name: str
    parameters: tuple[Parameter, ...]
    needs: frozenset[Need]
    base: bool
    least: int
    most: float
