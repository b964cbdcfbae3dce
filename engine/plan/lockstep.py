"""What differences and merges have in common: spans of rows, and what each operand must read for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from engine.nouns.records import Checkpoint, Span, TensorInfo
from engine.nouns.tasks import Ahead, Chunk, Scaled, Task
from engine.plan.cutting import cut_tensor, make_task, whole_chunks
from engine.plan.limits import Fitted
from engine.storage.ahead import pool_bytes

_EVERYTHING = 1 << 62


def cut_rows(first: int, last: int, tensor: TensorInfo, most: int) -> Iterator[Span]:
    """Cut a stretch into whole rows, of so many elements at most if rows allow."""
    row = prod(tensor.shape[1:]) if len(tensor.shape) > 1 else 1
    size = most // row * row if row <= most else most
    for start in range(first, last, size):
        yield start, min(start + size, last)


def can_be_cut(tensor: TensorInfo) -> bool:
    """Whether any of its elements can be read alone."""
    return tensor.ordered and all(piece.plain for piece in tensor.stored)


def operand_chunks(number: int, tensor: TensorInfo, span: Span, scaled: Scaled | None) -> list[Chunk]:
    """Chunks that hold a span; of what cannot be cut, all.

    Args:
        number: the tensor's ordinal.
        tensor: of plain weights, or the codes of a quantised one.
        span: elements.
        scaled: what to do with codes.
    """
    if not all(p.plain for p in tensor.stored):
        return [replace(c, scaled=scaled) for c in whole_chunks(number, tensor)]
    outside = [(0, span[0]), (span[1], tensor.elements)]
    cut = cut_tensor(number, tensor, outside, _EVERYTHING)
    return [replace(c, scaled=scaled) for c in cut] if scaled else list(cut)


def operand_task(
    key: int, checkpoint: Checkpoint, chunks: list[Chunk], limits: Fitted, *, passing: bool
) -> Task:
    """Make the task that reads the chunks of one operand; there may be none."""
    if not chunks:
        return Task(key, (), (), 8, 0)
    made = make_task(key, checkpoint, chunks, limits)
    buffers = pool_bytes(made.ahead) if isinstance(made.ahead, Ahead) else 0
    return replace(made, passing=passing, projected_bytes=made.projected_bytes + buffers)


def lie_alike(tensors: Mapping[int, TensorInfo]) -> bool:
    """Whether all tensors lie in the same order, whatever it is."""
    return len({tuple((p.elements, p.view, p.at) for p in t.stored) for t in tensors.values()}) == 1
