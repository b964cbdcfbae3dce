"""From tensors to chunks, and from chunks to tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from engine.nouns.dtypes import DTYPES, Coding
from engine.nouns.records import Checkpoint, Piece, Span, TensorInfo
from engine.nouns.tasks import Ahead, Chunk, Task
from engine.plan.limits import (
    BASE_BYTES,
    COUNTER_BYTES,
    FREE_TENSORS,
    MOST_CHUNKS,
    RESULT_BYTES,
    SMALLEST_TASK,
    TENSOR_BYTES,
    Fitted,
)
from engine.storage.ahead import pool_bytes


def cut_tensor(ordinal: int, tensor: TensorInfo, covered: Sequence[Span], task_bytes: int) -> Iterator[Chunk]:
    """Cut what is missing of a tensor into chunks of whole rows, of a task's size at most if rows allow.

    Pieces that are more than plain bytes are not cut.
    """
    if not tensor.elements:
        return
    item = tensor.kind.bits // 8
    row = prod(tensor.shape[1:]) if len(tensor.shape) > 1 else 1
    most = max(task_bytes // item, 1)
    step = most // row * row if row <= most else most
    begin = 0
    missing = list(gaps(covered, tensor.elements))
    for piece in tensor.stored:
        end = begin + piece.elements
        for start, stop in _within(missing, begin, end):
            if not piece.plain:
                yield piece_chunk(ordinal, tensor, piece, begin)
                continue
            for first in range(start, stop, step):
                last = min(first + step, stop)
                offset, nbytes = piece.offset + (first - begin) * item, (last - first) * item
                yield Chunk(ordinal, tensor.name, tensor.dtype, piece.file, offset, nbytes, first)
        begin = end


def _within(missing: Sequence[Span], begin: int, end: int) -> Iterator[Span]:
    """The parts of what is missing that lie within a span."""
    for start, stop in missing:
        if start < end and stop > begin:
            yield max(start, begin), min(stop, end)


def gaps(covered: Iterable[Span], elements: int) -> Iterator[Span]:
    """The spans of a tensor's elements that are not covered."""
    position = 0
    for start, stop in sorted(covered):
        if start > position:
            yield position, start
        position = max(position, stop)
    if position < elements:
        yield position, elements


def cut_tensors(
    checkpoint: Checkpoint, covered: Mapping[int, Sequence[Span]], ordinals: Sequence[int], limits: Fitted
) -> Iterator[Chunk]:
    """Cut what is missing of some tensors."""
    missing = [_missing_bytes(checkpoint.tensors[i], covered.get(i, ())) for i in ordinals]
    left = sum(missing)
    for ordinal, nbytes in zip(ordinals, missing, strict=True):
        tensor, spans = checkpoint.tensors[ordinal], covered.get(ordinal, ())
        yield from cut_tensor(ordinal, tensor, spans, limits.next_bytes(left))
        left -= nbytes


def _missing_bytes(tensor: TensorInfo, covered: Sequence[Span]) -> int:
    missing = sum(stop - start for start, stop in gaps(covered, tensor.elements))
    return tensor.nbytes * missing // max(tensor.elements, 1)


def group_chunks(checkpoint: Checkpoint, chunks: Sequence[Chunk], limits: Fitted) -> Iterator[Task]:
    """Group chunks that lie together; small files share a task."""
    left = sum(chunk.nbytes for chunk in chunks)
    most = limits.next_bytes(left)
    group: list[Chunk] = []
    key = size = 0
    for chunk in chunks:
        full = size + chunk.nbytes > most or len(group) >= MOST_CHUNKS
        other = bool(group) and chunk.file != group[-1].file and size >= SMALLEST_TASK
        if group and (full or other):
            yield make_task(key, checkpoint, group, limits)
            left -= size
            most = limits.next_bytes(left)
            group, key, size = [], key + 1, 0
        group.append(chunk)
        size += chunk.nbytes
    if group:
        yield make_task(key, checkpoint, group, limits)


def make_task(key: int, checkpoint: Checkpoint, group: list[Chunk], limits: Fitted) -> Task:
    """Make the task that reads a group of chunks, whose files are still those of the checkpoint."""
    codings = {c.name for chunk in group for c in _codings(checkpoint, chunk)}
    ahead = Ahead(limits.ranges, limits.range_bytes) if checkpoint.distant else None
    block = min(limits.block_bytes, -(-max(chunk.nbytes for chunk in group) // 8) * 8)
    tables = sum(COUNTER_BYTES.get(name, 0) for name in codings)
    numbers = {n: i for i, n in enumerate(dict.fromkeys(_files_of(group)))}
    passing = limits.cache_bytes is not None and checkpoint.nbytes > limits.cache_bytes
    return Task(
        key,
        tuple(checkpoint.files[n] for n in numbers),
        tuple(_renumbered(c, numbers) for c in group),
        block,
        block + tables + RESULT_BYTES + max(map(_unpacked_bytes, group)),
        passing,
        ahead=ahead,
    )


def _codings(checkpoint: Checkpoint, chunk: Chunk) -> Iterator[Coding]:
    ordinals = [chunk.tensor, *([chunk.scaled.tensor] if chunk.scaled else [])]
    yield from (c for i in ordinals if (c := checkpoint.tensors[i].coding))


def _files_of(group: Iterable[Chunk]) -> Iterator[int]:
    for chunk in group:
        yield chunk.file
        yield from (c.file for c in (chunk.scaled.factors if chunk.scaled else ()))


def _renumbered(chunk: Chunk, numbers: Mapping[int, int]) -> Chunk:
    """The same chunk, its files counted among those of its task."""
    scaled = chunk.scaled
    if scaled is not None:
        scaled = replace(scaled, factors=tuple(_renumbered(c, numbers) for c in scaled.factors))
    return replace(chunk, file=numbers[chunk.file], scaled=scaled)


def _unpacked_bytes(chunk: Chunk) -> int:
    """Memory that a piece takes beside the block: as stored, decompressed, and its elements side by side."""
    if chunk.piece is None:
        return 0
    dense = chunk.piece.elements * DTYPES[chunk.dtype].bits // 8 if chunk.piece.view else 0
    return chunk.nbytes + chunk.piece.memory + dense


def piece_chunk(ordinal: int, tensor: TensorInfo, piece: Piece, first: int) -> Chunk:
    """Make the chunk that is a whole piece."""
    special = None if piece.plain else piece
    return Chunk(ordinal, tensor.name, tensor.dtype, piece.file, piece.offset, piece.nbytes, first, special)


def whole_chunks(ordinal: int, tensor: TensorInfo) -> Iterator[Chunk]:
    """One chunk for each piece of a tensor."""
    first = 0
    for piece in tensor.stored:
        yield piece_chunk(ordinal, tensor, piece, first)
        first += piece.elements


def base_bytes(checkpoint: Checkpoint, limits: Fitted) -> int:
    """What the driver's process takes besides its workers."""
    tensors = max(0, len(checkpoint.tensors) - FREE_TENSORS) * TENSOR_BYTES
    return BASE_BYTES + tensors + (0 if limits.worker_bytes else _buffers(checkpoint, limits))


def process_bytes(checkpoint: Checkpoint, limits: Fitted) -> int:
    """What each worker takes besides its task, if it is a process of its own."""
    return limits.worker_bytes + _buffers(checkpoint, limits) if limits.worker_bytes else 0


def _buffers(checkpoint: Checkpoint, limits: Fitted) -> int:
    return pool_bytes(Ahead(limits.ranges, limits.range_bytes)) if checkpoint.distant else 0
