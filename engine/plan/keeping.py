"""Which tensors are kept in memory while a merge goes through them several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Merge, Task
from engine.plan.limits import MIB

MOST_BYTES = 96 * MIB
"""A worker keeps no more of all operands together: three matrices of 5,632 x 2,048 in bf16 take 66 MiB."""


def keep(tasks: Sequence[Task], spare: int | None) -> list[Task]:
    """Let tensors that are read several times stay in memory, where there is room.

    Args:
        tasks: of a merge; `Merge.kept` says what is read several times.
        spare: bytes that each task may take in addition; None for as many as are of use.
    """
    most = MOST_BYTES if spare is None else min(MOST_BYTES, spare)
    return [_with_room(task, most) if task.merges else task for task in tasks]


def _with_room(task: Task, most: int) -> Task:
    widths = [max((DTYPES[c.dtype].bits // 8 for c in o.chunks), default=0) for o in task.operands]
    width = sum(w or max(4, *widths) for w in widths)  # something stands in for what is absent
    sizes = [m.steps[0].elements * width if _can_be_kept(m) else 0 for m in task.merges]
    merges = tuple(replace(m, kept=0 < size <= most) for m, size in zip(task.merges, sizes, strict=True))
    room = max((size for size in sizes if size <= most), default=0)
    room += room // 8  # for the magnitudes that are kept while they are counted
    return replace(task, merges=merges, projected_bytes=task.projected_bytes + room)


def _can_be_kept(merge: Merge) -> bool:
    """In one step every operand has one dtype, whatever stands in for it."""
    return merge.kept and len(merge.steps) == 1
