"""What a merge method must know of whole tensors, found out by reading them before they are merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import lows
from engine.merge_methods.registry import Method
from engine.merge_methods.wholes import SPAN, InnerProducts
from engine.nouns.merging import Need, Roles
from engine.nouns.tasks import Merge, Sought
from engine.sketch import Sketch
from engine.statistics.distribution import distribution
from engine.statistics.magnitudes import locate, magnitude
from engine.statistics.moments import moments
from engine.tasks.delta import Subtraction
from engine.tasks.sinks import CountSink, Sink
from engine.tasks.together import Blocks, widened

Read = Callable[[int | None], Iterator[Blocks]]
Measure = Callable[[Merge, Read], tuple[dict[str, Any], list[Sketch]]]


class BandSink:
    """Finds the magnitudes at the ends of a band; see `Sink`.

    Args:
        band: where they lie; None where nothing is kept.
    """

    def __init__(self, band: tuple[Sought, Sought] | None) -> None:
        self._band = band
        codes = [np.uint32(code) for code, _ in band] if band else [np.uint32(0)] * 2
        self._first, self._second = codes
        self._lows = np.zeros((2, 1 << 16) if band else (2, 0), np.int64)

    def begin(self, ordinal: int) -> None:
        """See `Sink`."""

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """See `Sink`."""
        if self._band:
            lows.count_lows(patterns, self._first, self._second, self._lows)

    def add_bf16_differences(self, tuned: NDArray[np.uint16], base: NDArray[np.uint16]) -> None:
        """See `Sink`."""
        if self._band:
            lows.count_bf16_lows(tuned, base, self._first, self._second, self._lows)

    def add_zeros(self, count: int) -> None:
        """See `Sink`."""
        if self._band is None:
            return
        if self._first == 0:
            self._lows[0, 0] += count
        elif self._second == 0:
            self._lows[1, 0] += count

    def take(self) -> tuple[float, float]:
        """The two magnitudes, infinite where nothing is kept."""
        if self._band is None:
            return math.inf, math.inf
        (first, low), (second, high) = self._band
        own = self._lows[0 if first == second else 1]
        return magnitude(self._lows[0], first, low), magnitude(own, second, high)


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
        self._subtract = Subtraction()

    def __call__(self, merge: Merge, blocks: Read) -> tuple[dict[str, Any], list[Sketch]]:
        """Find out what a merge needs.

        Args:
            merge: of a whole tensor.
            blocks: reads all of its elements, cut at multiples of a unit; called once for each pass.

        Returns:
            arguments of the method, and the sketches of all differences if they were counted.
        """
        found: dict[str, Any] = {}
        sketches = self._count(blocks) if merge.measured else []
        if sketches and Need.SIGMA in self._method.needs:
            found["sigma"] = tuple(sigma_of(s) for s in sketches)
        if Need.BAND in self._method.needs:
            bands = bands_of(self._method, sketches, merge.arguments or {}) if sketches else merge.bands
            if bands is not None:
                found["band"] = self._refine(bands, blocks)
        for need in (Need.INNER, Need.TASK_INNER):
            if need in self._method.needs:
                found[need.value] = self._multiply(blocks, tasks=need is Need.TASK_INNER)
        return found, sketches

    def _count(self, blocks: Read) -> list[Sketch]:
        sinks, self._counting = self._counting, []  # come back only when all went well
        while len(sinks) < len(self._roles.models):
            sinks.append(CountSink())
        self._subtract_all(blocks, sinks)
        self._counting = sinks
        return [sink.take() for sink in sinks[: len(self._roles.models)]]

    def _refine(
        self, bands: Sequence[tuple[Sought, Sought] | None], blocks: Read
    ) -> tuple[tuple[float, float], ...]:
        sinks = [BandSink(band) for band in bands]
        if any(band is not None for band in bands):
            self._subtract_all(blocks, sinks)
        return tuple(sink.take() for sink in sinks)

    def _subtract_all(self, blocks: Read, sinks: Sequence[Sink[Any]]) -> None:
        base = self._roles.base
        assert base is not None
        for _, elements in blocks(None):
            for number, sink in zip(self._roles.models, sinks, strict=False):
                self._subtract(elements[number], elements[base], sink)
            self._subtract.forget()

    def _multiply(self, blocks: Read, *, tasks: bool) -> Any:
        """Inner products of the operands, or of the task vectors."""
        base, models = self._roles.base, self._roles.models
        assert base is not None
        products = InnerProducts(len(models) + (0 if tasks else 1))
        for start, elements in blocks(SPAN):
            first = widened(elements[base], self._wide)
            others = [widened(elements[n], self._wide) for n in models]
            products.add([o - first for o in others] if tasks else [first, *others], start)
        return products.total()


def sigma_of(sketch: Sketch) -> float:
    """Population standard deviation of the finite elements; 0 where there are none."""
    std = moments(distribution(sketch)).std
    return 0.0 if math.isnan(std) else std


def bands_of(
    method: Method, sketches: Sequence[Sketch], parameters: dict[str, Any]
) -> tuple[tuple[Sought, Sought] | None, ...]:
    """Where the ends of each model's band lie; see `band_of`."""
    count = len(sketches)
    return tuple(band_of(method, n, count, sketch, parameters) for n, sketch in enumerate(sketches))


def band_of(
    method: Method, number: int, count: int, sketch: Sketch, parameters: dict[str, Any]
) -> tuple[Sought, Sought] | None:
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
