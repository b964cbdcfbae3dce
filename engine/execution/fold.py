"""Outcomes come in any order; tensors come out whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from engine.nouns.records import Span
from engine.nouns.tasks import Part

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Partial(Generic[Found]):
    """What is known of a tensor that may not have been read to its end.

    Attributes:
        spans: disjoint element ranges that were read, merged where they touch.
        found: about those elements.
    """

    spans: tuple[Span, ...]
    found: Found

    @property
    def covered(self) -> int:
        """Elements read."""
        return sum(stop - start for start, stop in self.spans)


class Fold(Generic[Found]):
    """Adds up the parts of each tensor until it is whole.

    Args:
        elements: how many elements each tensor has, by ordinal.
        combine: adds up what was found; associative and commutative.
        partials: what an earlier, interrupted run left.
    """

    def __init__(
        self,
        elements: Mapping[int, int],
        combine: Callable[[Found, Found], Found],
        partials: Mapping[int, Partial[Found]] | None = None,
    ) -> None:
        self._elements, self._combine = elements, combine
        self.partials: dict[int, Partial[Found]] = dict(partials or {})
        self._whole: set[int] = set()

    def add(self, parts: Iterable[Part[Found]]) -> list[tuple[int, Found]]:
        """Add parts that no earlier part overlaps.

        Returns:
            the tensors that became whole, as (ordinal, found).

        Raises:
            ValueError: some elements were added before.
        """
        whole = []
        for part in parts:
            if part.tensor in self._whole:
                raise ValueError(f"tensor {part.tensor} was counted before, to its end")
            grown = self.grow(self.partials.pop(part.tensor, None), part)
            if grown.covered == self._elements[part.tensor]:
                whole.append((part.tensor, grown.found))
                self._whole.add(part.tensor)
            else:
                self.partials[part.tensor] = grown
        return whole

    def grow(self, partial: Partial[Found] | None, part: Part[Found]) -> Partial[Found]:
        """What is known with a part that does not overlap what was known before."""
        if partial is None:
            return Partial((part.span,), part.found)
        return Partial(_merge([*partial.spans, part.span]), self._combine(partial.found, part.found))


def _merge(spans: list[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start < merged[-1][1]:
            raise ValueError(f"elements {start} to {stop} were counted before")
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)
