"""From the fates of tensors to tasks that read several checkpoints in lockstep and write one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from engine.nouns.merging import Need, Roles
from engine.nouns.records import Checkpoint, Span
from engine.nouns.tasks import Chunk, Into, Merge, Sought, Step, Task
from engine.plan.cutting import gaps
from engine.plan.delta import plan_delta
from engine.plan.fates import Fate
from engine.plan.keeping import keep
from engine.plan.limits import (
    BASE_BYTES,
    COUNTER_BYTES,
    FREE_TENSORS,
    MIB,
    MOST_CHUNKS,
    RESULT_BYTES,
    TENSOR_BYTES,
    Fitted,
    Limits,
    Selection,
    fit,
    require_room,
)
from engine.plan.lockstep import can_be_cut, cut_rows, operand_chunks, operand_task
from engine.plan.pairing import Pairing
from engine.plan.rows import Segment
from engine.plan.scan import plan_scan
from engine.plan.shared import Covered, SharedPlan, without_tasks

Bands = tuple[tuple[Sought, Sought] | None, ...]
_FLOATS_BYTES = 8 * MIB
"""What is written, and operands as float32, of a worker."""
_INNER = {Need.INNER, Need.TASK_INNER}
_COUNTED = {Need.SIGMA, Need.BAND}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One tensor of the output.

    Attributes:
        fate: what becomes of it.
        into: where it is written.
        arguments: of the method; None where it is copied.
        bands: see `Merge`.
        counted: whether all that must be counted of it is known.
    """

    fate: Fate
    into: Into
    arguments: dict[str, Any] | None
    bands: Bands | None = None
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Blend:
    """Everything that is to be merged.

    Attributes:
        operands: what is read; the first gives the names.
        roles: which of them is what.
        needs: of the method.
        inventory: the output as a checkpoint.
        recipes: of its tensors, in their order.
        pairings: the differences of all models from the base, if they are counted; a subject each.
        itself: whether there is one pairing that is no difference, but what a scan of the first operand
            counts.
    """

    operands: tuple[Checkpoint, ...]
    roles: Roles
    needs: frozenset[Need]
    inventory: Checkpoint
    recipes: tuple[Recipe, ...]
    pairings: tuple[Pairing, ...] = ()
    itself: bool = False
    _links: dict[int, tuple[int | None, ...]] = field(default_factory=dict)

    def links(self, ordinal: int | None) -> tuple[int | None, ...]:
        """For each pairing the row of a tensor of the first operand that is compared whole, or None."""
        nothing = (None,) * len(self.pairings)
        if not self._links:
            for number, pairing in enumerate(self.pairings):
                for row, match in pairing.matches.items():
                    base, tuned = pairing.base.tensors[match.base], pairing.tuned.tensors[match.tuned]
                    if base.shape == tuned.shape:
                        first = match.base if pairing.base is self.operands[0] else match.tuned
                        own = self._links.get(first, nothing)
                        self._links[first] = (*own[:number], row, *own[number + 1 :])
        return nothing if ordinal is None else self._links.get(ordinal, nothing)


def plan_merge(
    blend: Blend, limits: Limits, numbers: Sequence[int] = (), covered: Sequence[Covered] = ()
) -> SharedPlan:
    """Cut a merge into tasks.

    Subjects are the differences, in the order of the pairings, and after them the output. What a method must
    count of a whole tensor is counted by the task that merges it; differences of what is not merged have
    tasks of their own.

    Args:
        blend: what is to be merged.
        limits: how to cut, and the memory limit.
        numbers: of the subjects that have something to do; the output's is the number of pairings. All of
            them by default.
        covered: for each of these, by ordinal, the spans that are done.

    Raises:
        ConfigError: a limit makes no sense.
        BudgetError: it would not fit into the memory limit.
    """
    output = len(blend.pairings)
    numbers = numbers or range(output + 1)
    done = dict(zip(numbers, covered or [{}] * len(numbers), strict=True))
    subjects = [blend.pairings[n].inventory if n < output else blend.inventory for n in numbers]
    offsets = tuple(sum(len(s.tensors) for s in subjects[:i]) for i in range(len(subjects)))
    cutter = _Cutter(blend, limits, dict(zip(numbers, offsets, strict=True)), done)
    tasks = cutter.tasks() if output in done else []
    differences = [n for n in numbers if n < output]
    if differences:
        rest = _rest(blend, limits, {n: done[n] for n in differences})
        tasks += (replace(t, key=len(tasks) + i) for i, t in enumerate(rest))
    least = _projected(blend, limits, tasks)
    require_room(limits, least, blend.inventory.uri)
    spare = None if limits.memory_bytes is None else (limits.memory_bytes - least) // limits.workers
    tasks = keep(tasks, spare)
    projected = _projected(blend, limits, tasks)
    plans = [
        without_tasks(s, blend.pairings[n].matches if n < output else _measured(blend), projected)
        for n, s in zip(numbers, subjects, strict=True)
    ]
    return SharedPlan(tuple(tasks), offsets, tuple(plans), projected)


def _rest(blend: Blend, limits: Limits, covered: Mapping[int, Covered]) -> tuple[Task, ...]:
    """Tasks that count what no merge does."""
    if blend.itself:
        return plan_scan(blend.operands[0], Selection(), limits, covered[0]).tasks
    return plan_delta([blend.pairings[n] for n in covered], limits, list(covered.values())).tasks


def _projected(blend: Blend, limits: Limits, tasks: Sequence[Task]) -> int:
    each = max((t.projected_bytes for t in tasks), default=0)
    return _base_bytes(blend) + min(limits.workers, len(tasks)) * (each + limits.worker_bytes)


def _measured(blend: Blend) -> list[int]:
    return [i for i, t in enumerate(blend.inventory.tensors) if t.coding is not None]


def _base_bytes(blend: Blend) -> int:
    rows = sum(len(c.tensors) for c in (*blend.operands, *(p.inventory for p in blend.pairings)))
    return BASE_BYTES + max(0, rows - FREE_TENSORS) * TENSOR_BYTES


@dataclass(frozen=True, slots=True)
class _Cut:
    """A merge, and the chunks of each operand that it reads."""

    merge: Merge
    chunks: list[list[Chunk]]

    @property
    def nbytes(self) -> int:
        return sum(c.nbytes for own in self.chunks for c in own)

    @property
    def count(self) -> int:
        return sum(map(len, self.chunks))


class _Cutter:
    """Cuts merges, and gathers them into tasks. What it measures it adds to what is covered."""

    def __init__(
        self, blend: Blend, limits: Limits, offsets: Mapping[int, int], covered: dict[int, Covered]
    ) -> None:
        self._blend, self._offsets, self._covered = blend, offsets, covered
        self._output = len(blend.pairings)
        operands = blend.operands
        distant = any(c.distant for c in operands)
        fitted = fit(limits, self._pending(), distant=distant)
        self._fitted: Fitted = replace(fitted, ranges=max(2, fitted.ranges // len(operands)))
        whole = sum(c.nbytes for c in operands)
        self._passing = fitted.cache_bytes is not None and whole > fitted.cache_bytes

    def _pending(self) -> int:
        return sum(
            self._blend.operands[n].tensors[ordinal].nbytes
            for recipe in self._blend.recipes
            for n, ordinal in enumerate(recipe.fate.sources)
            if ordinal is not None
        )

    def tasks(self) -> list[Task]:
        """The tasks of all tensors; those that are larger than others come first, lest one ends alone."""
        made = sorted(self._tasks(), key=lambda task: -max(task.nbytes, self._fitted.task_bytes))
        return [replace(task, key=key) for key, task in enumerate(made)]

    def _tasks(self) -> Iterator[Task]:
        group: list[_Cut] = []
        for cut in self._cuts():
            size = sum(c.nbytes for c in group) + cut.nbytes
            if group and (size > self._fitted.task_bytes or sum(c.count for c in group) >= MOST_CHUNKS):
                yield self._task(group)
                group = []
            group.append(cut)
        if group:
            yield self._task(group)

    def _cuts(self) -> Iterator[_Cut]:
        done = self._covered[self._output]
        for ordinal, recipe in enumerate(self._blend.recipes):
            tensor = recipe.fate.tensor
            known = done.get(ordinal, ()) if tensor.coding is not None else ()  # nobody notes the others
            missing = list(gaps(known, tensor.elements))
            if not missing:
                continue
            if self._is_measured(recipe):
                yield self._whole(ordinal, recipe)
                continue
            tensors = self._tensors(recipe)
            cuttable = all(can_be_cut(t) for t in tensors.values())
            wide = max(t.kind.bits // 8 for t in tensors.values())
            most = self._whole_rows(recipe, max(self._fitted.task_bytes // (len(tensors) * wide), 1))
            wanted = self._copied(recipe, missing)
            for first, last in missing if cuttable else [(0, tensor.elements)]:
                for span in cut_rows(first, last, tensor, most) if cuttable else [(first, last)]:
                    cut = self._cut(ordinal, recipe, span)
                    yield _Cut(replace(cut.merge, measured=wanted), cut.chunks) if wanted else cut

    def _whole_rows(self, recipe: Recipe, most: int) -> int:
        """How many elements are merged at once, of so many at most, if rows must stay whole and allow it."""
        shape = recipe.fate.tensor.shape
        if recipe.arguments is None or not shape or Need.ROWS not in self._blend.needs:
            return most
        columns = max(shape[-1], 1)  # of a vector, the row is all of it
        return max(most // columns, 1) * columns

    def _copied(self, recipe: Recipe, missing: Sequence[Span]) -> tuple[int, ...]:
        """The ordinal that the counts of a copy are those of too, if they are wanted."""
        if not self._blend.itself or recipe.arguments is not None or len(missing) > 1:
            return ()
        whole = missing[0] == (0, recipe.fate.tensor.elements)
        wanted = self._wanted(0, self._blend.links(recipe.fate.sources[0])[0]) if whole else None
        return () if wanted is None else (wanted,)

    def _is_measured(self, recipe: Recipe) -> bool:
        if recipe.arguments is None:
            return False
        counted = bool(_COUNTED & self._blend.needs) and not recipe.counted
        return counted or recipe.bands is not None or bool(_INNER & self._blend.needs)

    def _whole(self, ordinal: int, recipe: Recipe) -> _Cut:
        """A whole tensor, with what must be counted first."""
        cut = self._cut(ordinal, recipe, (0, recipe.fate.tensor.elements))
        cut = replace(cut, merge=replace(cut.merge, kept=True))
        if recipe.counted or not _COUNTED & self._blend.needs:
            return cut
        models = len(self._blend.roles.models)
        wanted: list[int | None] = [None] * models
        if recipe.fate.rows is None:
            links = self._blend.links(recipe.fate.sources[0])
            wanted = [self._wanted(number, row) for number, row in enumerate(links)] or wanted
        return _Cut(replace(cut.merge, measured=tuple(wanted)), cut.chunks)

    def _wanted(self, number: int, row: int | None) -> int | None:
        """The ordinal of a difference, if its counts are missing; they are no longer, once planned."""
        if row is None or number not in self._offsets:
            return None
        covered = dict(self._covered[number])
        elements = self._blend.pairings[number].inventory.tensors[row].elements
        if not list(gaps(covered.get(row, ()), elements)):
            return None
        if covered.get(row):  # a part was counted by a delta: let that go on
            return None
        self._covered[number] = covered | {row: ((0, elements),)}
        return self._offsets[number] + row

    def _tensors(self, recipe: Recipe) -> dict[int, Any]:
        """What is read, by operand."""
        sources = recipe.fate.sources
        if recipe.arguments is None:
            sources = sources[:1]
        used = {0, self._blend.roles.base, *self._blend.roles.models}
        return {
            n: self._blend.operands[n].tensors[ordinal]
            for n, ordinal in enumerate(sources)
            if ordinal is not None and n in used
        }

    def _cut(self, ordinal: int, recipe: Recipe, span: Span) -> _Cut:
        tensors = self._tensors(recipe)
        chunks: list[list[Chunk]] = [[] for _ in self._blend.operands]
        steps = []
        fate = recipe.fate
        for start, stop, starts in _segments(fate, span, len(chunks)):
            counts, held = [0] * len(chunks), [0] * len(chunks)
            for operand, tensor in tensors.items():
                begin = starts[operand]
                number = fate.sources[operand]
                assert number is not None
                if begin is None:
                    continue
                own = operand_chunks(number, tensor, (begin, begin + stop - start), None)
                chunks[operand] += own
                counts[operand], held[operand] = len(own), sum(c.elements for c in own)
            gathered = tuple(n for n, t in tensors.items() if not t.ordered)  # they are written in C order
            steps.append(Step(start, stop - start, tuple(counts), tuple(held), (), gathered))
        shape = fate.tensor.shape
        merge = Merge(
            ordinal=self._offsets[self._output] + ordinal,
            into=recipe.into,
            columns=shape[-1] if shape else 1,
            steps=tuple(steps),
            arguments=recipe.arguments,
            bands=recipe.bands,
        )
        return _Cut(merge, chunks)

    def _task(self, group: Sequence[_Cut]) -> Task:
        chunks = [[c for cut in group for c in cut.chunks[n]] for n in range(len(self._blend.operands))]
        operands = tuple(
            operand_task(0, checkpoint, own, self._fitted, passing=self._passing)
            for checkpoint, own in zip(self._blend.operands, chunks, strict=True)
        )
        merges = tuple(cut.merge for cut in group)
        counted = max(len(m.measured) for m in merges) * COUNTER_BYTES["f32"]
        written = COUNTER_BYTES["f32"] + RESULT_BYTES * sum(len(m.ordinals) for m in merges) // 8
        memory = sum(o.projected_bytes for o in operands) + counted + written + _FLOATS_BYTES
        block = max(o.block_bytes for o in operands)
        return Task(0, (), (), block, memory, operands=operands, merges=merges)


def _segments(fate: Fate, span: Span, operands: int) -> Iterator[tuple[int, int, Sequence[int | None]]]:
    """Parts of a span in which each operand's elements lie together, with the first of each operand."""
    if fate.rows is None:
        yield *span, [span[0]] * operands
        return
    row = prod(fate.tensor.shape[1:])
    segment: Segment
    for segment in fate.rows.segments:
        start, stop = max(segment.first * row, span[0]), min((segment.first + segment.count) * row, span[1])
        if start < stop:
            inside = start - segment.first * row
            yield start, stop, [None if s is None else s * row + inside for s in segment.starts]
