"""Merging: blocks of several checkpoints become blocks of one, which are counted and written in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.merge_methods.apply import Stored, merge
from engine.merge_methods.registry import METHODS
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Need, Roles, Stretch
from engine.nouns.tasks import Merge, Outcome, Part, Step, Task
from engine.sketch import Counter, Sketch
from engine.statistics.refinement import Refinement
from engine.statistics.spectrum import Spectrum
from engine.tasks.blocks import BlockReader
from engine.tasks.count import CountBody
from engine.tasks.folding import FoldBody
from engine.tasks.keeping import Kept, at_once, is_plain
from engine.tasks.lockstep import Elements, Operand
from engine.tasks.measuring import Measure, Measurer
from engine.tasks.together import BLOCK, Blocks, Together, stored
from engine.tasks.writing import Files

Found = Sketch | Refinement | Spectrum
_PLAIN = METHODS["linear"]  # of one tensor: itself, rounded


@dataclass(frozen=True, slots=True)
class Manner:
    """How everything is merged.

    Attributes:
        method: its name.
        roles: which operand is what.
        wide: whether to compute in float64.
    """

    method: str
    roles: Roles
    wide: bool = False


class MergeBody:
    """Runs the tasks of a merge; those of differences, which it comes with, too.

    Args:
        manner: how everything is merged.
    """

    def __init__(self, manner: Manner) -> None:
        self._method, self._roles, self._wide = METHODS[manner.method], manner.roles, manner.wide
        self._measure: Measure = Measurer(self._method, self._roles, wide=self._wide)
        self._readers: list[BlockReader] = []
        self._counters: dict[str, Counter] = {}
        self._out = np.empty(0, np.uint8)
        self._kept = Kept()
        self._count: CountBody | None = None
        self._fold: FoldBody | None = None

    def __call__(self, task: Task) -> Outcome[Found]:
        """Do what the task says.

        Raises:
            FormatError: an input is not the one that was planned.
            TaskError: the output cannot be written.
        """
        if not task.merges:
            return self._otherwise(task)
        while len(self._readers) < len(task.operands):
            self._readers.append(BlockReader(beside=True))
        parts: list[Part[Found]] = []
        counters, self._counters = self._counters, {}  # come back only when all went well
        with ExitStack() as stack:
            files = stack.enter_context(Files())
            for one, blocks in self._sources(task):
                parts += self._merge(one, blocks, files, counters)
        self._counters = counters
        return Outcome(task.key, task.nbytes, tuple(parts))

    def _otherwise(self, task: Task) -> Outcome[Found]:
        """Run what comes along with merges: products of an adapter that are written, and differences."""
        if any(product.into is not None for product in task.products):
            self._fold = self._fold or FoldBody()
            return self._fold(task)
        self._count = self._count or CountBody()
        return self._count(task)

    def _sources(self, task: Task) -> Iterator[tuple[Merge, _Once | _Again]]:
        """Each merge with what reads it; several times where something must be found out first."""
        if any(map(self._is_measured, task.merges)):
            for one, own in zip(task.merges, _own_tasks(task), strict=True):
                yield one, _Again(self._readers, own, one, self._kept)
            return
        at_once = _Once(self._readers, task)
        for one in task.merges:
            yield one, at_once.of(one)
        at_once.finish()

    def _is_measured(self, one: Merge) -> bool:
        needs = {Need.INNER, Need.TASK_INNER} & self._method.needs
        return one.arguments is not None and bool(one.measured or one.bands is not None or needs)

    def _merge(
        self, one: Merge, blocks: _Once | _Again, files: Files, counters: dict[str, Counter]
    ) -> Iterator[Part[Found]]:
        dtype = DTYPES[one.into.dtype]
        arguments, sketches = self._known(one, blocks)
        for ordinal, sketch in zip(one.measured, sketches, strict=False):
            if ordinal is not None:
                yield Part(ordinal, (0, sketch.count), sketch)
        if dtype.coding is not None and one.into.dtype not in counters:
            counters[one.into.dtype] = Counter(dtype)
        counter = counters.get(one.into.dtype)
        for step, start, elements in blocks.steps(self._unit(arguments, one)):
            data = self._made(one, start, list(map(stored, elements)), arguments)
            files.write(one.into, start * dtype.bits // 8, data)
            if counter is not None:
                counter.add(data)
            if counter is not None and start + elements[0].patterns.size == step.span[1]:
                yield Part(one.ordinal, step.span, counter.sketch())

    def _known(self, one: Merge, blocks: _Once | _Again) -> tuple[dict[str, Any] | None, list[Sketch]]:
        """The arguments of the method, and the sketches of what was counted to find them."""
        if one.arguments is None or not isinstance(blocks, _Again) or not self._is_measured(one):
            return one.arguments, []
        found, sketches = self._measure(one, blocks)
        return one.arguments | found, sketches

    def _unit(self, arguments: dict[str, Any] | None, one: Merge) -> int | None:
        """Where blocks may be cut: anywhere, or between rows."""
        return one.columns if Need.ROWS in self._method.needs and arguments is not None else None

    def _made(
        self, one: Merge, start: int, blocks: Sequence[Stored], arguments: dict[str, Any] | None
    ) -> NDArray[np.uint8]:
        """The bytes that are written."""
        dtype = DTYPES[one.into.dtype]
        if arguments is None and blocks[0].dtype == dtype:
            return blocks[0].data
        nbytes = blocks[0].size * dtype.bits // 8
        if self._out.size < nbytes:
            self._out = np.empty(max(nbytes, BLOCK * dtype.bits // 8), np.uint8)
        out = Stored(self._out[:nbytes], dtype)
        stretch = Stretch(one.into.name, start, one.columns)
        if arguments is None:
            merge(_PLAIN, None, blocks[:1], out, {"weight": 1.0}, stretch=stretch, wide=self._wide)
        else:
            base = None if self._roles.base is None else blocks[self._roles.base]
            models = [blocks[number] for number in self._roles.models]
            merge(self._method, base, models, out, arguments, stretch=stretch, wide=self._wide)
        return out.data


class _Once:
    """Reads all merges of a task, one after the other, in one go."""

    def __init__(self, readers: Sequence[BlockReader], task: Task) -> None:
        self._together = Together([Operand(r, o) for r, o in zip(readers, task.operands, strict=False)])
        self._steps: tuple[Step, ...] = ()

    def of(self, one: Merge) -> _Once:
        """Go on with a merge."""
        self._steps = one.steps
        return self

    def steps(self, unit: int | None) -> Iterator[tuple[Step, int, list[Any]]]:
        """All blocks of the merge."""
        for step in self._steps:
            for start, elements in self._together.blocks(step, unit):
                yield step, start, elements

    def finish(self) -> None:
        """End the task."""
        self._together.finish()


class _Again:
    """Goes through one merge as often as is wanted: reads it every time, or once, where it may be kept."""

    def __init__(
        self, readers: Sequence[BlockReader], operands: Sequence[Task], one: Merge, kept: Kept
    ) -> None:
        self._readers, self._operands, self._one = readers, operands, one
        self._kept, self._is_kept = kept, False

    def __call__(self, unit: int | None) -> Iterator[Blocks]:
        """All blocks, for a pass before the last."""
        for _, start, elements in self.steps(unit, last=False):
            yield start, elements

    def steps(self, unit: int | None, *, last: bool = True) -> Iterator[tuple[Step, int, list[Any]]]:
        """All blocks of the merge; before the last time the kernel had better keep what was read."""
        if not self._one.kept:
            tasks = [o if last else replace(o, passing=False) for o in self._operands]
            yield from self._read(self._together(tasks), unit)
            return
        step = self._one.steps[0]
        if not self._is_kept:
            self._keep(step)
        for start, elements in self._kept.blocks(unit):
            yield step, start, elements

    def held(self) -> list[Elements] | None:
        """All elements of every operand, if they are kept in memory."""
        if not self._one.kept:
            return None
        if not self._is_kept:
            self._keep(self._one.steps[0])
        return self._kept.held

    def _keep(self, step: Step) -> None:
        plain = not step.gathered and all(map(is_plain, self._operands))
        together = self._together([at_once(o) for o in self._operands] if plain else self._operands)
        self._kept.fill(together.blocks(step, step.elements), step.elements, steady=plain)
        together.finish()
        self._is_kept = True

    def _together(self, tasks: Sequence[Task]) -> Together:
        return Together([Operand(r, o) for r, o in zip(self._readers, tasks, strict=False)])

    def _read(self, together: Together, unit: int | None) -> Iterator[tuple[Step, int, list[Any]]]:
        for step in self._one.steps:
            for start, elements in together.blocks(step, unit):
                yield step, start, elements
        together.finish()


def _own_tasks(task: Task) -> Iterator[list[Task]]:
    """For each merge its operands, with no chunks but its own."""
    done = [0] * len(task.operands)
    for one in task.merges:
        counts = [sum(step.chunks[n] for step in one.steps) for n in range(len(task.operands))]
        yield [
            replace(operand, chunks=operand.chunks[first : first + count])
            for operand, first, count in zip(task.operands, done, counts, strict=True)
        ]
        done = [first + count for first, count in zip(done, counts, strict=True)]
