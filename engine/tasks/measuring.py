"""What a merge method must know of whole tensors, found out by reading them before they are merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.merge_methods.registry import Method
from engine.merge_methods.wholes import SPAN, InnerProducts
from engine.nouns.merging import Need, Roles
from engine.nouns.tasks import Merge, Sought, Task
from engine.sketch import Sketch
from engine.statistics.distribution import distribution
from engine.statistics.magnitudes import locate, magnitude, signed
from engine.statistics.moments import moments
from engine.tasks.delta import Subtraction
from engine.tasks.sinks import CountSink, RefineSink, Sink
from engine.tasks.together import Blocks, widened

Read = Callable[[int | None], Iterator[Blocks]]


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
        self._refining: list[RefineSink] = []
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
        sinks, self._refining = self._refining, []
        while len(sinks) < len(bands):
            sinks.append(RefineSink())
        codes = {
            number: tuple(sorted({c for code, _ in band for c in signed(code)}))
            for number, band in enumerate(bands)
            if band is not None
        }
        task = Task(0, (), (), 8, 0, refine={n: codes.get(n, ()) for n in range(len(bands))})
        for number, sink in enumerate(sinks[: len(bands)]):
            sink.of(task)
            sink.begin(number)
        if codes:
            self._subtract_all(blocks, sinks)
        found = []
        for sink, band in zip(sinks, bands, strict=False):
            refinement = sink.take()
            if band is None:
                found.append((math.inf, math.inf))
            else:
                low, high = (magnitude(refinement, *sought) for sought in band)
                found.append((low, high))
        self._refining = sinks
        return tuple(found)

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
