"""From an inventory to the tasks of a pack: one for each shard that is to be written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from engine.nouns.records import Checkpoint, Span
from engine.nouns.tasks import Chunk, Task
from engine.plan.cutting import base_bytes, cut_tensor, make_task, whole_chunks
from engine.plan.limits import Fitted, Limits, fit, require_room

COPIES = 6
"""A shard is in memory this often while it is read, encoded, written and read back; measured."""


def plan_pack(
    checkpoint: Checkpoint, shards: Mapping[int, Iterable[Span]], shard_bytes: int, limits: Limits
) -> tuple[Task, ...]:
    """Make a task for every shard, or for every tensor that must be put in order first.

    Args:
        checkpoint: the inventory.
        shards: for each ordinal the elements of its shards, in C order.
        shard_bytes: of the largest shard.
        limits: as for a scan.

    Raises:
        BudgetError: it would not fit into the memory limit.
    """
    pending = sum(checkpoint.tensors[i].nbytes for i in shards)
    fitted = fit(replace(limits, task_bytes=max(shard_bytes, 1)), pending, distant=checkpoint.distant)
    tasks: list[Task] = []
    for ordinal, spans in shards.items():
        tensor = checkpoint.tensors[ordinal]
        if not is_copied_by_shards(checkpoint, ordinal):
            tasks.append(
                _task(len(tasks), checkpoint, list(whole_chunks(ordinal, tensor)), shard_bytes, fitted)
            )
            continue
        for start, stop in spans:
            before, after = (0, start), (stop, tensor.elements)
            chunks = list(cut_tensor(ordinal, tensor, [before, after], fitted.task_bytes))
            tasks.append(_task(len(tasks), checkpoint, chunks, shard_bytes, fitted))
    each = max((t.projected_bytes for t in tasks), default=0)
    projected = base_bytes(checkpoint, fitted) + min(limits.workers, len(tasks)) * each
    require_room(limits, projected, checkpoint.uri)
    return tuple(tasks)


def is_copied_by_shards(checkpoint: Checkpoint, ordinal: int) -> bool:
    """Whether each shard of a tensor is a few byte ranges, so that shards can be copied one by one."""
    tensor = checkpoint.tensors[ordinal]
    return tensor.ordered and all(p.plain for p in tensor.stored)


def _task(key: int, checkpoint: Checkpoint, chunks: list[Chunk], shard_bytes: int, limits: Fitted) -> Task:
    task = make_task(key, checkpoint, chunks, limits)
    return replace(task, projected_bytes=task.projected_bytes + COPIES * shard_bytes)
