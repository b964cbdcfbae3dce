"""Where 32-bit floats go that are made in memory: into a sketch, or into what a second pass looks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.device.counter import GpuCounter
from engine.device.worker import Device
from engine.kernels import cpu
from engine.near import Near
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Task
from engine.sketch import Counter, Sketch
from engine.statistics.refinement import Refinement
from engine.tasks.forming import Factors
from engine.tasks.lockstep import Elements
from engine.tasks.refine import RefineTables

Form = Callable[[], Factors | None]
"""Says of what something is the product; None where it is more than one product."""

Found_co = TypeVar("Found_co", covariant=True)


class Sink(Protocol[Found_co]):
    """Takes the elements of one tensor after the other, in any order."""

    def begin(self, ordinal: int) -> None:
        """What follows is of this tensor."""
        ...

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """Count (n,) uint32 patterns of float32."""
        ...

    def subtract(self, tuned: Elements, base: Elements) -> bool:
        """Count tuned - base, if it subtracts such elements itself; whether it did."""
        ...

    def multiply(self, factors: Form) -> bool:
        """Count a product, if it forms products itself; whether it did."""
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

    def subtract(self, tuned: Elements, base: Elements) -> bool:
        """See `Sink`."""
        if not are_bf16(tuned, base):
            return False
        self._counter.add_bf16_differences(tuned.patterns, base.patterns)
        return True

    def multiply(self, factors: Form) -> bool:
        """See `Sink`."""
        return False

    def add_zeros(self, count: int) -> None:
        """See `Sink`."""
        self._counter.add_zeros(count)

    def take(self) -> Sketch:
        """See `Sink`."""
        return self._counter.sketch()


class GpuSink:
    """Makes sketches on a GPU, where differences and products are formed too.

    Args:
        counter: of F32.
    """

    def __init__(self, counter: GpuCounter) -> None:
        self._counter = counter

    def begin(self, ordinal: int) -> None:
        """See `Sink`."""

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """See `Sink`."""
        self._counter.add(patterns.view(np.uint8))

    def subtract(self, tuned: Elements, base: Elements) -> bool:
        """See `Sink`."""
        ours, theirs = tuned.patterns.view(np.uint8), base.patterns.view(np.uint8)
        self._counter.subtract(ours, DTYPES[tuned.dtype], theirs, DTYPES[base.dtype])
        return True

    def multiply(self, factors: Form) -> bool:
        """See `Sink`."""
        found = factors()
        return found is not None and self._counter.multiply(found.left, found.right, found.scale)

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

    def subtract(self, tuned: Elements, base: Elements) -> bool:
        """See `Sink`."""
        if not are_bf16(tuned, base):
            return False
        patterns = np.empty(tuned.patterns.size, np.uint32)
        cpu.subtract_bf16(tuned.patterns, base.patterns, patterns)
        self._tables.add(patterns)
        return True

    def multiply(self, factors: Form) -> bool:
        """See `Sink`."""
        return False

    def add_zeros(self, count: int) -> None:
        """See `Sink`."""
        self._tables.add_zeros(count)

    def take(self) -> Refinement:
        """See `Sink`."""
        return self._tables.take()


def are_bf16(tuned: Elements, base: Elements) -> bool:
    """Whether both are bf16, whose differences have a loop of their own."""
    return tuned.dtype == base.dtype == "BF16"


class Sinks:
    """Sinks of one kind, one for each difference that is counted at the same time; reused.

    Args:
        device: where they count.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._counting: list[CountSink | GpuSink] = []
        self._refining: list[RefineSink] = []

    def afresh(self) -> Sinks:
        """Others of the same device, for a task that may fail."""
        return Sinks(self._device)

    def _count_sink(self) -> CountSink | GpuSink:
        counter = self._device.counter(DTYPES["F32"])
        return GpuSink(counter) if isinstance(counter, GpuCounter) else CountSink()

    def of(self, task: Task, ordinals: tuple[int, ...]) -> list[Sink[Sketch | Refinement]]:
        """A sink for each tensor, each begun."""
        if not task.refine:
            while len(self._counting) < len(ordinals):
                self._counting.append(self._count_sink())
            return list(self._counting[: len(ordinals)])
        while len(self._refining) < len(ordinals):
            self._refining.append(RefineSink())
        chosen = self._refining[: len(ordinals)]
        for sink, ordinal in zip(chosen, ordinals, strict=True):
            sink.of(task)
            sink.begin(ordinal)
        return list(chosen)
