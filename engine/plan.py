"""From an inventory and a budget to tasks. Whatever cannot run is refused here, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod

from engine.errors import BudgetError, ConfigError
from engine.nouns.defaults import RANGES
from engine.nouns.dtypes import DTYPES, Coding
from engine.nouns.records import Ahead, Checkpoint, Chunk, Piece, Scaled, Span, Task, TensorInfo

MIB = 1 << 20
TASK_BYTES = 256 * MIB
BLOCK_BYTES = MIB
RANGE_BYTES = 8 * MIB
SPARE_RANGES = 2
"""Buffers beyond the requests under way."""
_SMALLEST_TASK = 8 * MIB
_TASKS_PER_WORKER = 4
_MOST_CHUNKS = 4_096

BASE_BYTES = 320 * MIB
"""Interpreter, libraries, warehouse and rows that wait to be written; measured, see BENCHMARKS.md."""
COUNTER_BYTES = {"bf16": 4 * MIB, "f16": 2 * MIB, "f32": 6 * MIB}
"""Tables of a worker for one coding; the 8-bit codings take next to nothing."""
REFINE_BYTES = 40 * MIB
"""Tables of a worker's second pass: up to 64 codes of 65,536 low halves and the power sums."""
RESULT_BYTES = 2 * MIB
"""The sketches of a finished task."""
TENSOR_BYTES = 20_000
"""What a tensor takes from its header to its rows; measured with 20,000 tensors, see BENCHMARKS.md."""
FREE_TENSORS = 1_000
"""Tensors that are paid for by `BASE_BYTES`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tensors to measure, by shell patterns on their names.

    Attributes:
        include: at least one must match; none given means all.
        exclude: none may match.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def words(self) -> str:
        """The patterns, for messages."""
        wanted = f"matches {' or '.join(map(repr, self.include))}" if self.include else "is left"
        return wanted + (f" without {' and '.join(map(repr, self.exclude))}" if self.exclude else "")

    def __contains__(self, name: str) -> bool:
        """Whether a tensor of this name is selected."""
        wanted = not self.include or any(fnmatchcase(name, p) for p in self.include)
        return wanted and not any(fnmatchcase(name, p) for p in self.exclude)


@dataclass(frozen=True, slots=True)
class Limits:
    """How to cut the work.

    Attributes:
        workers: how many tasks run at once.
        task_bytes: about how many bytes a task reads; None adapts to the checkpoint.
        block_bytes: how many bytes one read asks for.
        memory_bytes: what the whole may take; None for no limit.
        cache_bytes: how large a checkpoint the kernel's page cache can hold; None if that is not known.
        ranges: how many requests at once read a distant checkpoint.
        range_bytes: how many bytes one of them asks for.
    """

    workers: int = 1
    task_bytes: int | None = None
    block_bytes: int = BLOCK_BYTES
    memory_bytes: int | None = None
    cache_bytes: int | None = None
    ranges: int = RANGES
    range_bytes: int = RANGE_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done.

    Attributes:
        tasks: in file order.
        measured: ordinals of the tensors that have counts to make, whether or not they still need reading.
        listed: ordinals of the tensors that only get a row with a reason.
        projected_bytes: memory that the whole may take at its peak.
    """

    tasks: tuple[Task, ...]
    measured: tuple[int, ...]
    listed: tuple[int, ...]
    projected_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(t.nbytes for t in self.tasks)


def plan_scan(
    checkpoint: Checkpoint,
    selection: Selection,
    limits: Limits,
    covered: Mapping[int, Sequence[Span]],
    *,
    exact: bool = False,
) -> Plan:
    """Cut the selected tensors of a checkpoint into tasks.

    Args:
        checkpoint: the inventory.
        selection: which tensors.
        limits: how to cut, and the memory limit.
        covered: for each ordinal the spans of elements that an earlier, interrupted scan has counted.
        exact: whether a second pass over 32-bit floats will follow, which takes more memory.

    Raises:
        ConfigError: nothing is selected, or a limit makes no sense.
        BudgetError: it would not fit into the memory limit.
    """
    _check(limits)
    chosen = _chosen(checkpoint, selection)
    if not chosen and checkpoint.tensors:
        raise ConfigError(
            f"no tensor of {len(checkpoint.tensors):,} {selection.words()}", file=checkpoint.uri
        )
    measured = [i for i in chosen if checkpoint.tensors[i].coding is not None]
    listed = [i for i in chosen if checkpoint.tensors[i].coding is None]
    read = [i for i in measured if checkpoint.tensors[i].scaling is None]  # values come with their codes
    pending = sum(checkpoint.tensors[i].nbytes for i in read)
    scaled = _scaled(checkpoint)
    chunks = (
        replace(c, scaled=scaled.get(i)) if i in scaled else c
        for i in read
        for c in _chunks(i, checkpoint.tensors[i], covered.get(i, ()), limits, pending)
    )
    tasks = tuple(_tasks(checkpoint, chunks, limits, pending))
    refined = exact and any(_is_refined(checkpoint.tensors[i]) for i in measured)
    each = max((t.projected_bytes for t in tasks), default=0) + (REFINE_BYTES if refined else 0)
    base = _base_bytes(checkpoint, limits)
    projected = base + min(limits.workers, len(tasks)) * each
    if limits.memory_bytes is not None and projected > limits.memory_bytes:
        _refuse(checkpoint, tasks, limits, projected, each)
    return Plan(tasks, tuple(measured), tuple(listed), projected)


def _chosen(checkpoint: Checkpoint, selection: Selection) -> list[int]:
    """Ordinals of the selected tensors; values are selected with their codes."""
    tensors = checkpoint.tensors
    return [
        i for i, t in enumerate(tensors) if (tensors[t.scaling.codes] if t.scaling else t).name in selection
    ]


def _base_bytes(checkpoint: Checkpoint, limits: Limits) -> int:
    """What the process takes besides its workers."""
    tensors = max(0, len(checkpoint.tensors) - FREE_TENSORS) * TENSOR_BYTES
    buffers = (limits.ranges + SPARE_RANGES) * limits.range_bytes if checkpoint.distant else 0
    return BASE_BYTES + tensors + buffers


def _scaled(checkpoint: Checkpoint) -> dict[int, Scaled]:
    """What to do with the chunks of each tensor of codes; files are still those of the checkpoint."""
    found = {}
    for ordinal, tensor in enumerate(checkpoint.tensors):
        if tensor.scaling is not None:
            number, matrix, block = tensor.scaling.factors, tensor.scaling.matrix, tensor.scaling.block
            factors = tuple(_whole_chunks(number, checkpoint.tensors[number]))
            found[tensor.scaling.codes] = Scaled(ordinal, matrix, block, factors)
    return found


def _whole_chunks(ordinal: int, tensor: TensorInfo) -> Iterator[Chunk]:
    first = 0
    for piece in tensor.stored:
        yield _piece_chunk(ordinal, tensor, piece, first)
        first += piece.elements


def _piece_chunk(ordinal: int, tensor: TensorInfo, piece: Piece, first: int) -> Chunk:
    special = None if piece.plain else piece
    return Chunk(ordinal, tensor.name, tensor.dtype, piece.file, piece.offset, piece.nbytes, first, special)


def plan_refine(
    checkpoint: Checkpoint, codes: Mapping[int, tuple[int, ...]], limits: Limits
) -> tuple[Task, ...]:
    """Cut the tensors of a second pass into tasks.

    Args:
        checkpoint: the inventory.
        codes: for each ordinal the codes to look into.
        limits: as for the first pass.
    """
    pending = sum(checkpoint.tensors[i].nbytes for i in codes)
    scaled = {s.tensor: s for s in _scaled(checkpoint).values()}
    chunks = [
        replace(c, scaled=scaled[i]) if i in scaled else c
        for i in sorted(codes)
        for c in _chunks(i, checkpoint.tensors[i], (), limits, pending)
    ]
    return tuple(
        replace(
            t,
            refine={c.tensor: codes[c.tensor] for c in t.chunks},
            projected_bytes=t.projected_bytes + REFINE_BYTES,
        )
        for t in _tasks(checkpoint, chunks, limits, pending)
    )


def _is_refined(tensor: TensorInfo) -> bool:
    return tensor.coding is not None and not tensor.coding.complete and tensor.elements > 0


def _check(limits: Limits) -> None:
    if limits.workers < 1:
        raise ConfigError(f"workers must be at least 1, not {limits.workers}")
    if limits.block_bytes < 8 or limits.block_bytes % 8:
        raise ConfigError(
            f"the block size must be a positive multiple of 8 bytes, not {limits.block_bytes:,}"
        )
    if limits.ranges < 1:
        raise ConfigError(f"the number of ranges must be at least 1, not {limits.ranges}")
    if limits.range_bytes < 8 or limits.range_bytes % 8:
        raise ConfigError(
            f"the range size must be a positive multiple of 8 bytes, not {limits.range_bytes:,}"
        )
    if limits.task_bytes is not None and limits.task_bytes < 1:
        raise ConfigError(f"the task size must be positive, not {limits.task_bytes:,}")


def _task_bytes(limits: Limits, pending: int) -> int:
    if limits.task_bytes is not None:
        return limits.task_bytes
    fair = pending // (limits.workers * _TASKS_PER_WORKER)
    return min(TASK_BYTES, max(_SMALLEST_TASK, fair))


def _chunks(
    ordinal: int, tensor: TensorInfo, covered: Sequence[Span], limits: Limits, pending: int
) -> Iterator[Chunk]:
    """Cut what is missing of a tensor into chunks of whole rows, of a task's size at most if rows allow.

    Pieces that are more than plain bytes are not cut.
    """
    if not tensor.elements:
        return
    item = tensor.kind.bits // 8
    row = prod(tensor.shape[1:]) if len(tensor.shape) > 1 else 1
    most = max(_task_bytes(limits, pending) // item, 1)
    step = most // row * row if row <= most else most
    begin = 0
    gaps = list(_gaps(covered, tensor.elements))
    for piece in tensor.stored:
        end = begin + piece.elements
        for start, stop in _within(gaps, begin, end):
            if not piece.plain:
                yield _piece_chunk(ordinal, tensor, piece, begin)
                continue
            for first in range(start, stop, step):
                last = min(first + step, stop)
                offset, nbytes = piece.offset + (first - begin) * item, (last - first) * item
                yield Chunk(ordinal, tensor.name, tensor.dtype, piece.file, offset, nbytes, first)
        begin = end


def _within(gaps: Sequence[Span], begin: int, end: int) -> Iterator[Span]:
    """The parts of gaps that lie within a span."""
    for start, stop in gaps:
        if start < end and stop > begin:
            yield max(start, begin), min(stop, end)


def _gaps(covered: Iterable[Span], elements: int) -> Iterator[Span]:
    position = 0
    for start, stop in sorted(covered):
        if start > position:
            yield position, start
        position = max(position, stop)
    if position < elements:
        yield position, elements


def _tasks(checkpoint: Checkpoint, chunks: Iterable[Chunk], limits: Limits, pending: int) -> Iterator[Task]:
    """Group chunks that lie together; small files share a task."""
    most = _task_bytes(limits, pending)
    group: list[Chunk] = []
    key = size = 0
    for chunk in chunks:
        full = size + chunk.nbytes > most or len(group) >= _MOST_CHUNKS
        other = bool(group) and chunk.file != group[-1].file and size >= _SMALLEST_TASK
        if group and (full or other):
            yield _task(key, checkpoint, group, limits)
            group, key, size = [], key + 1, 0
        group.append(chunk)
        size += chunk.nbytes
    if group:
        yield _task(key, checkpoint, group, limits)


def _task(key: int, checkpoint: Checkpoint, group: list[Chunk], limits: Limits) -> Task:
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


def _refuse(
    checkpoint: Checkpoint, tasks: tuple[Task, ...], limits: Limits, projected: int, each: int
) -> None:
    base = _base_bytes(checkpoint, limits)
    message = (
        f"would take {projected / MIB:,.0f} MiB, over the limit of "
        f"{(limits.memory_bytes or 0) / MIB:,.0f} MiB: {base / MIB:,.0f} MiB for the process"
    )
    if tasks:
        worst = max(tasks, key=lambda t: t.projected_bytes)
        message += (
            f", and for each of {min(limits.workers, len(tasks))} workers up to {each / MIB:,.0f} MiB "
            f"(task {worst.key}, which begins with {worst.chunks[0].name!r})"
        )
    raise BudgetError(message, file=checkpoint.uri)
