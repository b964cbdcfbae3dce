"""From tensors to chunks, and from chunks to tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from engine.nouns.dtypes import DTYPES, Coding
from engine.nouns.matrices import Matrix, measured_matrix
from engine.nouns.records import Checkpoint, Piece, Span, TensorInfo
from engine.nouns.tasks import Ahead, Chunk, Task
from engine.plan.limits import (
    BASE_BYTES,
    COUNTER_BYTES,
    FREE_TENSORS,
    MIB,
    MOST_CHUNKS,
    RESULT_BYTES,
    SMALLEST_TASK,
    TENSOR_BYTES,
    Fitted,
)
from engine.storage.ahead import pool_bytes


def cut_tensor(
    ordinal: int,
    tensor: TensorInfo,
    covered: Sequence[Span],
    task_bytes: int,
    matrix: Matrix | None = None,
) -> Iterator[Chunk]:
    """Cut what is missing of a tensor into chunks of whole rows, of a task's size at most if rows allow.

    Pieces that are more than plain bytes are not cut.

    Args:
        ordinal: of the tensor.
        tensor: it.
        covered: the spans of elements that are not missing.
        task_bytes: a task's size.
        matrix: what its rows and columns are measured as, if they are; then cuts lie where bands end.
    """
    if not tensor.elements:
        return
    item = tensor.kind.bits // 8
    row = prod(tensor.shape[1:]) if len(tensor.shape) > 1 else 1
    most = max(task_bytes // item, 1)
    step = most // row * row if row <= most else most
    if matrix is not None:
        step = _whole_bands(matrix, most)
    begin = 0
    missing = list(gaps(covered, tensor.elements))
    for piece in tensor.stored:
        end = begin + piece.elements
        for start, stop in _within(missing, begin, end):
            if not piece.plain:
                yield replace(piece_chunk(ordinal, tensor, piece, begin), matrix=matrix)
                continue
            for first, last in _steps(start, stop, step, 0 if matrix is not None else start):
                offset, nbytes = piece.offset + (first - begin) * item, (last - first) * item
                yield Chunk(
                    ordinal, tensor.name, tensor.dtype, piece.file, offset, nbytes, first, matrix=matrix
                )
        begin = end


def _steps(start: int, stop: int, step: int, origin: int) -> Iterator[Span]:
    """Cut a span where multiples of a step lie, counted from an origin."""
    while start < stop:
        last = min(origin + ((start - origin) // step + 1) * step, stop)
        yield start, last
        start = last


def _whole_bands(matrix: Matrix, most: int) -> int:
    """So many elements at most, if a band allows: bands whose sums of columns make one node of the tree."""
    band = matrix.start(1)
    return band << max(0, (most // band).bit_length() - 1)


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
    checkpoint: Checkpoint,
    covered: Mapping[int, Sequence[Span]],
    ordinals: Sequence[int],
    limits: Fitted,
    *,
    iid: bool = False,
) -> Iterator[Chunk]:
    """Cut what is missing of some tensors, those whose rows and columns are measured where bands end."""
    missing = [_missing_bytes(checkpoint.tensors[i], covered.get(i, ())) for i in ordinals]
    left = sum(missing)
    for ordinal, nbytes in zip(ordinals, missing, strict=True):
        tensor, spans = checkpoint.tensors[ordinal], covered.get(ordinal, ())
        matrix = measured_matrix(tensor) if iid else None
        yield from cut_tensor(ordinal, tensor, spans, limits.next_bytes(left), matrix)
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
        block + tables + RESULT_BYTES + max(map(_unpacked_bytes, group)) + sum(map(_bands_bytes, group)),
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


def _bands_bytes(chunk: Chunk) -> int:
    """Memory that the rows and columns of a chunk take: a band, and sums before and after they are joined."""
    if chunk.matrix is None:
        return 0
    sides = 2 if chunk.scaled else 1
    return sides * sums_bytes(chunk.matrix, chunk.elements) + 12 * chunk.matrix.start(1)


def sums_bytes(matrix: Matrix, elements: int) -> int:
    """Memory that the sums of rows and columns of some elements of a matrix take, while they are joined."""
    rows, bands = elements // matrix.columns + 1, elements // matrix.start(1) + 1
    arrays = 2 * bands.bit_length() + matrix.waiting + 2
    return 48 * rows + 16 * matrix.columns * arrays


def spectrum_bytes(matrix: Matrix) -> int:
    """Memory that singular values take: the matrix, its Gram matrix twice, and strips of float64."""
    smaller = min(matrix.rows, matrix.columns)
    return 4 * matrix.elements + 24 * smaller**2 + 32 * MIB


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
    """What each worker takes besides its task: most of it if it is a process of its own."""
    own = limits.worker_bytes + _buffers(checkpoint, limits) if limits.worker_bytes else 0
    return own + limits.device_bytes


def _buffers(checkpoint: Checkpoint, limits: Fitted) -> int:
    return pool_bytes(Ahead(limits.ranges, limits.range_bytes)) if checkpoint.distant else 0
