"""Where 32-bit floats go that are made in memory: into a sketch, or into what a second pass looks for."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.kernels import cpu
from engine.near import Near
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Task
from engine.sketch import Counter, Sketch
from engine.statistics.refinement import Refinement
from engine.tasks.refine import RefineTables

Found_co = TypeVar("Found_co", covariant=True)


class Sink(Protocol[Found_co]):
    """Takes the elements of one tensor after the other, in any order."""

    def begin(self, ordinal: int) -> None:
        """What follows is of this tensor."""
        ...

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """Count (n,) uint32 patterns of float32."""
        ...

    def add_bf16_differences(self, tuned: NDArray[np.uint16], base: NDArray[np.uint16]) -> None:
        """Count tuned - base, of (n,) bf16 patterns each."""
        ...

    def add_zeros(self, count: int) -> None:
        """Count so many elements that are +0."""
        ...

    def take(self) -> Found_co:
        """Hand out what was found, and start again from nothing."""
        ...


class CountSink:
    """Makes sketches."""

    def __init__(self) -> None:
        self._counter = Counter(DTYPES["F32"])

    def keep(self, near: Near | None) -> None:
        """Keep the magnitudes of a range while they are counted, until the sketch is taken."""
        self._counter.near = near

    def begin(self, ordinal: int) -> None:
        """See `Sink`."""

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """See `Sink`."""
        self._counter.add(patterns.view(np.uint8))

    def add_bf16_differences(self, tuned: NDArray[np.uint16], base: NDArray[np.uint16]) -> None:
        """See `Sink`."""
        self._counter.add_bf16_differences(tuned, base)

    def add_zeros(self, count: int) -> None:
        """See `Sink`."""
        self._counter.add_zeros(count)

    def take(self) -> Sketch:
        """See `Sink`."""
        return self._counter.sketch()


class RefineSink:
    """Makes refinements, of the codes that a task says."""

    def __init__(self) -> None:
        self._tables = RefineTables()
        self._codes: dict[int, tuple[int, ...]] = {}

    def of(self, task: Task) -> None:
        """Begin a task."""
        self._codes = task.refine

    def begin(self, ordinal: int) -> None:
        """See `Sink`."""
        self._tables.choose(self._codes[ordinal])

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """See `Sink`."""
        self._tables.add(patterns)

    def add_bf16_differences(self, tuned: NDArray[np.uint16], base: NDArray[np.uint16]) -> None:
        """See `Sink`."""
        patterns = np.empty(tuned.size, np.uint32)
        cpu.subtract_bf16(tuned, base, patterns)
        self._tables.add(patterns)

    def add_zeros(self, count: int) -> None:
        """See `Sink`."""
        self._tables.add_zeros(count)

    def take(self) -> Refinement:
        """See `Sink`."""
        return self._tables.take()


class Sinks:
    """Sinks of one kind, one for each difference that is counted at the same time; reused."""

    def __init__(self) -> None:
        self._counting: list[CountSink] = []
        self._refining: list[RefineSink] = []

    def of(self, task: Task, ordinals: tuple[int, ...]) -> list[Sink[Sketch | Refinement]]:
        """A sink for each tensor, each begun."""
        if not task.refine:
            while len(self._counting) < len(ordinals):
                self._counting.append(CountSink())
            return list(self._counting[: len(ordinals)])
        while len(self._refining) < len(ordinals):
            self._refining.append(RefineSink())
        chosen = self._refining[: len(ordinals)]
        for sink, ordinal in zip(chosen, ordinals, strict=True):
            sink.of(task)
            sink.begin(ordinal)
        return list(chosen)
