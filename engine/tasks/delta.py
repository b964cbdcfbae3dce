"""Differences of checkpoints: read in lockstep, subtracted in float32, counted, and stored nowhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.device.worker import Device
from engine.kernels import differences
from engine.nouns.tasks import Outcome, Part, Step, Task
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement
from engine.tasks.blocks import BlockReader
from engine.tasks.lockstep import Elements, Operand
from engine.tasks.sinks import Sink, Sinks

_BLOCK = 1 << 19  # elements: what a read of 16-bit elements brings; fewer take more time in Python
_INFINITY: dict[str, np.unsignedinteger] = {
    "BF16": np.uint16(0x7F80),
    "F16": np.uint16(0x7C00),
    "F32": np.uint32(0x7F800000),
}

Found = Sketch | Refinement
Patterns = NDArray[np.unsignedinteger]


class DeltaBody:
    """Runs the tasks of a delta. Each difference is one IEEE subtraction in float32.

    Args:
        device: where it is counted.
    """

    def __init__(self, device: Device) -> None:
        self._readers: list[BlockReader] = []
        self._sinks = Sinks(device)
        self._subtract = Subtraction()

    def __call__(self, task: Task) -> Outcome[Found]:
        """Count, or refine, the differences of every step of a task."""
        while len(self._readers) < len(task.operands):
            self._readers.append(BlockReader(beside=True))
        sinks, self._sinks = self._sinks, self._sinks.afresh()  # come back only when all went well
        operands = [Operand(r, o) for r, o in zip(self._readers, task.operands, strict=False)]
        parts: list[Part[Found]] = []
        for step in task.steps:
            chosen = sinks.of(task, tuple(ordinal for _, ordinal in step.differences))
            self._count(step, operands, chosen)
            parts += (
                Part(ordinal, step.span, sink.take())
                for (_, ordinal), sink in zip(step.differences, chosen, strict=True)
            )
        for operand in operands:
            operand.finish()
        self._sinks = sinks
        return Outcome(task.key, task.nbytes, tuple(parts))

    def _count(self, step: Step, operands: list[Operand], sinks: list[Sink[Found]]) -> None:
        taking = [operands[i] for i in (0, *(number for number, _ in step.differences))]
        for number, operand in enumerate(operands):
            if step.chunks[number]:
                held = step.held[number]
                operand.begin(step.chunks[number], held, gather=number in step.gathered)
        left = step.elements
        while left:
            count = min(left, _BLOCK, *(operand.ready() for operand in taking))
            base = taking[0].take(count)
            for operand, sink in zip(taking[1:], sinks, strict=True):
                self._subtract(operand.take(count), base, sink)
            self._subtract.forget()
            left -= count
        for operand in taking:
            operand.end()


class Subtraction:
    """Gives the differences of blocks to sinks; one base may serve several."""

    def __init__(self) -> None:
        self._out = np.empty(_BLOCK, np.uint32)
        self._base: NDArray[np.float32] | None = None

    def __call__(self, tuned: Elements, base: Elements, sink: Sink[Found]) -> None:
        """Give tuned - base to a sink."""
        out = self._out[: tuned.patterns.size]
        infinity = _INFINITY.get(tuned.dtype) if tuned.dtype == base.dtype else None
        if infinity is not None and _are_same_and_finite(tuned.patterns, base.patterns, infinity):
            sink.add_zeros(out.size)
            return
        if sink.subtract(tuned, base):
            return
        if self._base is None:
            self._base = base.floats()
        differences.subtract_f32(tuned.floats(), self._base, out)
        sink.add(out)

    def forget(self) -> None:
        """Go on to another block of the base."""
        self._base = None


def _are_same_and_finite(tuned: Patterns, base: Patterns, infinity: np.unsignedinteger) -> bool:
    """Whether two blocks are equal bit by bit and all finite, so that their differences are +0."""
    words = tuned.size * tuned.itemsize // 8 * (8 // tuned.itemsize)  # elements in whole words
    if not np.array_equal(tuned[words:], base[words:]) or _is_odd(tuned) or _is_odd(base):
        return False
    same, seen = differences.same_words(tuned[:words].view(np.uint64), base[:words].view(np.uint64))
    if not same:
        return False
    bits = np.bitwise_or.reduce(np.array([seen]).view(tuned.dtype), initial=tuned.dtype.type(0))
    if words == tuned.size and bits & infinity != infinity:  # so no exponent has all of its bits
        return True
    return bool(differences.are_finite(tuned, infinity))


def _is_odd(patterns: Patterns) -> bool:
    """Whether they do not begin where a word of 8 bytes does."""
    return bool(patterns.__array_interface__["data"][0] % 8)
