"""What a merge method must know of whole tensors, found out by reading them before they are merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from engine.merge_methods.registry import Method
from engine.merge_methods.wholes import SPAN, InnerProducts
from engine.near import Near
from engine.nouns.merging import Need, Roles
from engine.nouns.tasks import Merge
from engine.sketch import Sketch
from engine.statistics.distribution import distribution
from engine.statistics.magnitudes import locate
from engine.statistics.moments import moments
from engine.tasks.delta import Subtraction
from engine.tasks.lockstep import Elements
from engine.tasks.ranks import Band, BandSink, ends_of, guess, room_for
from engine.tasks.sinks import CountSink, Sink
from engine.tasks.together import Blocks, widened


class Passes(Protocol):
    """Reads all elements of a merge, as often as is wanted."""

    def __call__(self, unit: int | None) -> Iterator[Blocks]:
        """Go through them once, cut at multiples of a unit."""
        ...

    def held(self) -> list[Elements] | None:
        """All elements of every operand, if they are kept in memory."""
        ...


Measure = Callable[[Merge, Passes], tuple[dict[str, Any], list[Sketch]]]


class Measurer:
    """Finds out what a method needs, of one tensor after the other.

    Args:
        method: whose needs they are.
        roles: of the operands.
        wide: whether inner products are of float64.
    """

    def __init__(self, method: Method, roles: Roles, *, wide: bool) -> None:
        self._method, self._roles, self._wide = method, roles, wide
        self._counting: list[CountSink] = []
        self._rooms = [np.empty(0, np.uint32) for _ in roles.models]
        self._subtract = Subtraction()

    def __call__(self, merge: Merge, blocks: Passes) -> tuple[dict[str, Any], list[Sketch]]:
        """Find out what a merge needs.

        Args:
            merge: of a whole tensor.
            blocks: reads all of its elements.

        Returns:
            arguments of the method, and the sketches of all differences if they were counted.
        """
        found: dict[str, Any] = {}
        nears = self._guess(merge, blocks)
        sketches = self._count(blocks, nears) if merge.measured else []
        if sketches and Need.SIGMA in self._method.needs:
            found["sigma"] = tuple(sigma_of(s) for s in sketches)
        if Need.BAND in self._method.needs:
            bands = bands_of(self._method, sketches, merge.arguments or {}) if sketches else merge.bands
            if bands is not None:
                ends = [ends_of(*each) for each in zip(bands, sketches, nears, strict=False)]
                found["band"] = self._refine(bands, ends or [None] * len(bands), blocks)
        for need in (Need.INNER, Need.TASK_INNER):
            if need in self._method.needs:
                found[need.value] = self._multiply(blocks, tasks=need is Need.TASK_INNER)
        return found, sketches

    def _guess(self, merge: Merge, blocks: Passes) -> list[Near | None]:
        """Which magnitudes of each difference are to be kept while they are counted."""
        count = len(self._roles.models)
        held = blocks.held() if merge.measured and Need.BAND in self._method.needs else None
        if held is None:
            return [None] * count
        assert self._roles.base is not None
        base, size = held[self._roles.base], held[0].patterns.size
        ranks = self._method.ranks_of(size, count, merge.arguments or {})
        if self._rooms[0].size < room_for(size):
            self._rooms = [np.empty(room_for(size), np.uint32) for _ in self._rooms]
        return [
            None if rank is None else guess(held[number], base, rank[0], room)
            for number, rank, room in zip(self._roles.models, ranks, self._rooms, strict=True)
        ]

    def _count(self, blocks: Passes, nears: Sequence[Near | None]) -> list[Sketch]:
        sinks, self._counting = self._counting, []  # come back only when all went well
        while len(sinks) < len(self._roles.models):
            sinks.append(CountSink())
        for sink, near in zip(sinks, nears, strict=True):
            sink.keep(near)
        self._subtract_all(blocks, sinks)
        self._counting = sinks
        return [sink.take() for sink in sinks]

    def _refine(
        self, bands: Sequence[Band], ends: Sequence[tuple[float, float] | None], blocks: Passes
    ) -> tuple[tuple[float, float], ...]:
        """The ends of all bands; those that are not known are looked for."""
        sinks = {n: BandSink(bands[n]) for n, known in enumerate(ends) if known is None}
        if any(bands[n] is not None for n in sinks):
            self._subtract_all(blocks, [sinks.get(n) for n in range(len(bands))])
        return tuple(known or sinks[n].take() for n, known in enumerate(ends))

    def _subtract_all(self, blocks: Passes, sinks: Sequence[Sink[Any] | None]) -> None:
        base = self._roles.base
        assert base is not None
        for _, elements in blocks(None):
            for number, sink in zip(self._roles.models, sinks, strict=True):
                if sink is not None:
                    self._subtract(elements[number], elements[base], sink)
            self._subtract.forget()

    def _multiply(self, blocks: Passes, *, tasks: bool) -> Any:
        """Inner products of the operands, or of the task vectors."""
        base, models = self._roles.base, self._roles.models
        assert base is not None
        products = InnerProducts(len(models) + (0 if tasks else 1))
        for _, elements in blocks(SPAN):
            first = widened(elements[base], self._wide)
            others = [widened(elements[n], self._wide) for n in models]
            # 0: blocks begin at multiples of SPAN in a run of rows, which may begin anywhere in the tensor
            products.add([o - first for o in others] if tasks else [first, *others], 0)
        return products.total()


def sigma_of(sketch: Sketch) -> float:
    """Population standard deviation of the finite elements; 0 where there are none."""
    std = moments(distribution(sketch)).std
    return 0.0 if math.isnan(std) else std


def bands_of(method: Method, sketches: Sequence[Sketch], parameters: dict[str, Any]) -> tuple[Band, ...]:
    """Where the ends of each model's band lie; see `band_of`."""
    count = len(sketches)
    return tuple(band_of(method, n, count, sketch, parameters) for n, sketch in enumerate(sketches))


def band_of(method: Method, number: int, count: int, sketch: Sketch, parameters: dict[str, Any]) -> Band:
    """Where the ends of a model's band lie; None where nothing is kept.

    Args:
        method: one that needs a band.
        number: of the model.
        count: how many there are.
        sketch: of the model's whole difference.
        parameters: of the method.
    """
    rank = method.ranks_of(sketch.count, count, parameters)[number]
    return None if rank is None else (locate(sketch, rank[0]), locate(sketch, rank[1]))
