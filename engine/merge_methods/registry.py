"""All methods, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from engine.merge_methods import (
    breadcrumbs,
    dare_linear,
    dare_ties,
    della,
    linear,
    model_stock,
    outlier,
    slerp,
    task_arithmetic,
    ties,
)
from engine.merge_methods.signature import Block, Blocks, schema_of
from engine.nouns.merging import Need, Schema

Ranks = list[tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method.

    Attributes:
        name: as configurations spell it.
        function: the definition, on blocks of floats.
        schema: what its signature says.
        fused: the same from patterns to patterns in one loop, if there is one.
        ranks: for a method that needs a band, which ranks of the magnitudes it keeps.
        checked: refuses parameters that do not go together, by the count of models and the length of a row.
    """

    name: str
    function: Callable[..., Block]
    schema: Schema
    fused: Callable[..., None] | None
    ranks: Callable[..., Ranks] | None
    checked: Callable[..., None] | None

    @property
    def needs(self) -> frozenset[Need]:
        """What must be known of the whole tensor, or of the block."""
        return self.schema.needs

    def __call__(self, base: Block | None, models: Blocks, **arguments: Any) -> Block:
        """Merge blocks; `base` is passed on to methods that have one."""
        return (
            self.function(base, models, **arguments)
            if self.schema.base
            else self.function(models, **arguments)
        )

    def check(self, count: int, columns: int, parameters: dict[str, Any]) -> None:
        """Refuse what would fail on the first block.

        Args:
            count: models.
            columns: elements of a row; see `Stretch`.
            parameters: of the method, for one tensor.

        Raises:
            ConfigError: parameters do not go together.
        """
        if self.checked is not None:
            self.checked(count, columns, **parameters)

    def ranks_of(self, size: int, count: int, parameters: dict[str, Any]) -> Ranks:
        """Which ranks of the magnitudes of each task vector are kept, from 0, the smallest.

        Args:
            size: elements of the tensor.
            count: models.
            parameters: of the method.

        Raises:
            ValueError: the method needs none.
        """
        if self.ranks is None:
            raise ValueError(f"{self.name} trims nothing")
        wanted = {k: parameters[k] for k in ("density", "gamma") if k in parameters}
        return self.ranks(size, count, **wanted)


def _method(module: ModuleType) -> Method:
    name = module.__name__.rsplit(".", 1)[-1]
    function = getattr(module, name)
    found = schema_of(name, function)
    more = (getattr(module, other, None) for other in ("fused", "ranks", "check"))
    return Method(name, function, found, *more)


_MODULES = (
    outlier, linear, task_arithmetic, ties, dare_linear, dare_ties, breadcrumbs, della, slerp, model_stock,
)  # fmt: skip

METHODS: dict[str, Method] = {m.name: m for m in map(_method, _MODULES)}
"""Every method by its name."""

SCHEMAS: dict[str, Schema] = {m.name: m.schema for m in METHODS.values()}
"""What every method's signature says."""
