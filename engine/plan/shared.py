"""What is planned for several subjects at once, because one reading serves them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from engine.nouns.records import Checkpoint, Span
from engine.nouns.tasks import Task
from engine.plan.scan import Plan

Covered = Mapping[int, Sequence[Span]]
"""For each ordinal the spans of elements that an earlier, interrupted run has counted."""


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """What will be done.

    Attributes:
        tasks: in the order of the base's files; their ordinals count the rows of all subjects, one subject
            after the other.
        offsets: the ordinal of the first row of each subject.
        plans: of each subject, without tasks.
        projected_bytes: memory that the whole may take at its peak.
    """

    tasks: tuple[Task, ...]
    offsets: tuple[int, ...]
    plans: tuple[Plan, ...]
    projected_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(t.nbytes for t in self.tasks)


def without_tasks(inventory: Checkpoint, measured: Collection[int], projected: int) -> Plan:
    """What one subject is told of a plan that it shares.

    Args:
        inventory: of the subject.
        measured: ordinals of the tensors that have counts to make.
        projected: memory that the whole may take.
    """
    listed = tuple(i for i in range(len(inventory.tensors)) if i not in measured)
    return Plan((), tuple(measured), listed, projected)
