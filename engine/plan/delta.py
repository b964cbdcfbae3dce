"""From pairs of checkpoints to tasks that read them in lockstep. Whatever cannot run is refused here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from engine.device.choosing import more_bytes
from engine.errors import ConfigError
from engine.nouns.records import Span, TensorInfo
from engine.nouns.tasks import Chunk, Step, Task
from engine.plan.cutting import gaps
from engine.plan.limits import (
    BASE_BYTES,
    COUNTER_BYTES,
    FREE_TENSORS,
    MIB,
    MOST_CHUNKS,
    REFINE_BYTES,
    RESULT_BYTES,
    TENSOR_BYTES,
    Fitted,
    Limits,
    fit,
    require_room,
)
from engine.plan.lockstep import can_be_cut, cut_rows, lie_alike, operand_chunks, operand_task
from engine.plan.pairing import Match, Pairing
from engine.plan.scan import scaled_tensors
from engine.plan.shared import Covered, SharedPlan, without_tasks

_FLOATS_BYTES = 4 * MIB
"""Differences, and operands as float32, of a worker."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One difference that a base tensor takes part in."""

    operand: int
    ordinal: int
    match: Match
    missing: tuple[Span, ...]


def plan_delta(
    pairings: Sequence[Pairing],
    limits: Limits,
    covered: Sequence[Covered] = (),
    *,
    exact: bool = False,
    refine: Mapping[int, tuple[int, ...]] | None = None,
) -> SharedPlan:
    """Cut the differences of one base and several tuned checkpoints into tasks; each is read once.

    Args:
        pairings: all of one base.
        limits: how to cut, and the memory limit.
        covered: for each pairing, by ordinal, the spans that an earlier, interrupted run has counted.
        exact: whether a second pass will follow, which takes more memory.
        refine: for that second pass, the codes of each ordinal, counted over all pairings; no other
            is read.

    Raises:
        ConfigError: nothing is selected, or a limit makes no sense.
        BudgetError: it would not fit into the memory limit.
    """
    for pairing in pairings:
        if not pairing.inventory.tensors:
            raise ConfigError("no tensor is selected", file=pairing.inventory.uri)
    offsets = tuple(sum(len(p.inventory.tensors) for p in pairings[:i]) for i in range(len(pairings)))
    parts = _parts(pairings, offsets, covered or [{}] * len(pairings), refine)
    fitted = _fit(pairings, parts, limits)
    tasks = tuple(_Cutter(pairings, fitted, refine).tasks(parts))
    each = max((t.projected_bytes for t in tasks), default=0) + (REFINE_BYTES * len(pairings) if exact else 0)
    each += fitted.worker_bytes + fitted.device_bytes
    each += more_bytes(len(pairings)) if fitted.device_bytes else 0
    projected = _base_bytes(pairings, fitted) + min(limits.workers, len(tasks)) * each
    require_room(limits, projected, pairings[0].inventory.uri)
    plans = tuple(without_tasks(p.inventory, p.matches, projected) for p in pairings)
    return SharedPlan(tasks, offsets, plans, projected)


def _parts(
    pairings: Sequence[Pairing],
    offsets: Sequence[int],
    covered: Sequence[Covered],
    refine: Mapping[int, tuple[int, ...]] | None,
) -> dict[int, list[_Part]]:
    """The differences that are missing, by the base's ordinals."""
    found: dict[int, list[_Part]] = {}
    for number, (pairing, offset, spans) in enumerate(zip(pairings, offsets, covered, strict=True), 1):
        for row, match in pairing.matches.items():
            if refine is not None and offset + row not in refine:
                continue
            missing = tuple(gaps(spans.get(row, ()), match.elements))
            if missing:
                found.setdefault(match.base, []).append(_Part(number, offset + row, match, missing))
    return dict(sorted(found.items()))


def _fit(pairings: Sequence[Pairing], parts: Mapping[int, list[_Part]], limits: Limits) -> Fitted:
    """Limits for all operands together."""
    base = pairings[0].base
    pending = 0
    for ordinal, several in parts.items():
        pending += base.tensors[ordinal].nbytes
        pending += sum(pairings[p.operand - 1].tuned.tensors[p.match.tuned].nbytes for p in several)
    distant = base.distant or any(p.tuned.distant for p in pairings)
    fitted = fit(limits, pending, distant=distant)
    return replace(fitted, ranges=max(2, fitted.ranges // (1 + len(pairings))))


def _base_bytes(pairings: Sequence[Pairing], fitted: Fitted) -> int:
    rows = sum(len(p.inventory.tensors) + len(p.tuned.tensors) for p in pairings)
    return (
        BASE_BYTES
        + max(0, rows - FREE_TENSORS) * TENSOR_BYTES
        + RESULT_BYTES * len(pairings) * fitted.workers
    )


class _Cutter:
    """Cuts steps, and gathers them into tasks."""

    def __init__(
        self, pairings: Sequence[Pairing], fitted: Fitted, refine: Mapping[int, tuple[int, ...]] | None
    ) -> None:
        self._operands = [pairings[0].base, *(p.tuned for p in pairings)]
        self._scaled = [scaled_tensors(c) for c in self._operands]
        self._fitted, self._refine = fitted, refine
        whole = sum(c.nbytes for c in self._operands)
        self._passing = fitted.cache_bytes is not None and whole > fitted.cache_bytes
        self._chunks: list[list[Chunk]] = []
        self._steps: list[Step] = []
        self._key = 0
        self._clear()

    def _clear(self) -> None:
        self._chunks = [[] for _ in self._operands]
        self._steps, self._size = [], 0

    def tasks(self, parts: Mapping[int, list[_Part]]) -> Iterator[Task]:
        """The tasks of all differences."""
        for ordinal, several in parts.items():
            for step, chunks in self._cut(ordinal, several):
                size = sum(c.nbytes for own in chunks for c in own)
                count = sum(map(len, self._chunks))
                full = self._size + size > self._fitted.task_bytes or count >= MOST_CHUNKS
                if self._steps and full:
                    yield self._task()
                self._steps.append(step)
                self._size += size
                for own, new in zip(self._chunks, chunks, strict=True):
                    own.extend(new)
        if self._steps:
            yield self._task()

    def _cut(self, ordinal: int, parts: Sequence[_Part]) -> Iterator[tuple[Step, list[list[Chunk]]]]:
        """The steps of one tensor of the base, with the chunks of every operand."""
        base = self._operands[0].tensors[ordinal]
        tensors = {0: (ordinal, base)} | {p.operand: (p.match.tuned, self._tensor(p)) for p in parts}
        for first, last, own in _stretches(parts):
            chosen = {0: tensors[0]} | {p.operand: tensors[p.operand] for p in own}
            cuttable = all(can_be_cut(t) for _, t in chosen.values())
            most = max(self._fitted.task_bytes // (len(chosen) * max(base.kind.bits // 8, 1)), 1)
            for start, stop in cut_rows(first, last, base, most) if cuttable else [(first, last)]:
                chunks: list[list[Chunk]] = [[] for _ in self._operands]
                for operand, (number, tensor) in chosen.items():
                    chunks[operand] = self._operand_chunks(operand, number, tensor, (start, stop))
                alike = lie_alike({o: t for o, (_, t) in chosen.items()})
                gathered = () if alike else tuple(o for o, (_, t) in chosen.items() if not t.ordered)
                held = tuple(sum(c.elements for c in own) for own in chunks)
                differences = tuple((p.operand, p.ordinal) for p in own)
                counts = tuple(map(len, chunks))
                yield Step(start, stop - start, counts, held, differences, gathered), chunks

    def _tensor(self, part: _Part) -> TensorInfo:
        return self._operands[part.operand].tensors[part.match.tuned]

    def _operand_chunks(self, operand: int, number: int, tensor: TensorInfo, span: Span) -> list[Chunk]:
        """Chunks that hold a span; of what cannot be cut, all."""
        scaled = self._scaled[operand].get(tensor.scaling.codes) if tensor.scaling else None
        if tensor.scaling:  # the values are made of the codes
            number = tensor.scaling.codes
            tensor = self._operands[operand].tensors[number]
        return operand_chunks(number, tensor, span, scaled)

    def _task(self) -> Task:
        operands = [
            operand_task(self._key, checkpoint, own, self._fitted, passing=self._passing)
            for checkpoint, own in zip(self._operands, self._chunks, strict=True)
        ]
        differences = max(len(s.differences) for s in self._steps)
        results = RESULT_BYTES * sum(len(s.differences) for s in self._steps) // 8 + RESULT_BYTES
        memory = sum(o.projected_bytes for o in operands) + differences * COUNTER_BYTES["f32"]
        memory += results + _FLOATS_BYTES
        ordinals = [ordinal for step in self._steps for _, ordinal in step.differences]
        codes = {o: self._refine[o] for o in ordinals} if self._refine is not None else {}
        block = max(o.block_bytes for o in operands)
        task = Task(
            self._key, (), (), block, memory, refine=codes, operands=tuple(operands), steps=tuple(self._steps)
        )
        self._key += 1
        self._clear()
        return task


def _stretches(parts: Sequence[_Part]) -> Iterator[tuple[int, int, list[_Part]]]:
    """Elements that the same differences are missing of, as (first, last, those differences)."""
    edges = sorted({edge for part in parts for span in part.missing for edge in span})
    for first, last in pairwise(edges):
        own = [p for p in parts if any(start <= first and last <= stop for start, stop in p.missing)]
        if own:
            yield first, last, own
