"""From an inventory and a budget to tasks. Whatever cannot run is refused here, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod

from engine.errors import BudgetError, ConfigError
from engine.nouns.records import Checkpoint, Chunk, Span, Task, TensorInfo

MIB = 1 << 20
TASK_BYTES = 256 * MIB
BLOCK_BYTES = MIB
_SMALLEST_TASK = 8 * MIB
_TASKS_PER_WORKER = 4

BASE_BYTES = 320 * MIB
"""Interpreter, libraries, warehouse and rows that wait to be written; measured, see BENCHMARKS.md."""
COUNTER_BYTES = {"bf16": 4 * MIB, "f16": 2 * MIB, "f32": 6 * MIB}
"""Tables of a worker for one coding; the 8-bit codings take next to nothing."""
REFINE_BYTES = 40 * MIB
"""Tables of a worker's second pass: up to 64 codes of 65,536 low halves and the power sums."""
RESULT_BYTES = 2 * MIB
"""The sketches of a finished task."""


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
    """

    workers: int = 1
    task_bytes: int | None = None
    block_bytes: int = BLOCK_BYTES
    memory_bytes: int | None = None
    cache_bytes: int | None = None


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
    chosen = [i for i, t in enumerate(checkpoint.tensors) if t.name in selection]
    if not chosen and checkpoint.tensors:
        raise ConfigError(
            f"no tensor of {len(checkpoint.tensors):,} matches {selection}", file=checkpoint.uri
        )
    measured = [i for i in chosen if checkpoint.tensors[i].kind.coding is not None]
    listed = [i for i in chosen if checkpoint.tensors[i].kind.coding is None]
    pending = sum(checkpoint.tensors[i].nbytes for i in measured)
    chunks = [
        c for i in measured for c in _chunks(i, checkpoint.tensors[i], covered.get(i, ()), limits, pending)
    ]
    tasks = tuple(_tasks(checkpoint, chunks, limits, pending))
    refined = exact and any(_is_f32(checkpoint, c) for t in tasks for c in t.chunks)
    each = max((t.projected_bytes for t in tasks), default=0) + (REFINE_BYTES if refined else 0)
    projected = BASE_BYTES + min(limits.workers, len(tasks)) * each
    if limits.memory_bytes is not None and projected > limits.memory_bytes:
        _refuse(checkpoint, tasks, limits, projected, each)
    return Plan(tasks, tuple(measured), tuple(listed), projected)


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
    chunks = [c for i in sorted(codes) for c in _chunks(i, checkpoint.tensors[i], (), limits, pending)]
    return tuple(
        replace(
            t,
            refine={c.tensor: codes[c.tensor] for c in t.chunks},
            projected_bytes=t.projected_bytes + REFINE_BYTES,
        )
        for t in _tasks(checkpoint, chunks, limits, pending)
    )


def _is_f32(checkpoint: Checkpoint, chunk: Chunk) -> bool:
    coding = checkpoint.tensors[chunk.tensor].kind.coding
    return coding is not None and not coding.complete


def _check(limits: Limits) -> None:
    if limits.workers < 1:
        raise ConfigError(f"workers must be at least 1, not {limits.workers}")
    if limits.block_bytes < 8 or limits.block_bytes % 8:
        raise ConfigError(
            f"the block size must be a positive multiple of 8 bytes, not {limits.block_bytes:,}"
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
    """Cut what is missing of a tensor into pieces of whole rows, of a task's size at most if rows allow."""
    if not tensor.elements:
        return
    item = tensor.kind.bits // 8
    row = prod(tensor.shape[1:]) if len(tensor.shape) > 1 else 1
    most = max(_task_bytes(limits, pending) // item, 1)
    step = most // row * row if row <= most else most
    for start, stop in _gaps(covered, tensor.elements):
        for first in range(start, stop, step):
            last = min(first + step, stop)
            offset, nbytes = tensor.offset + first * item, (last - first) * item
            yield Chunk(ordinal, tensor.name, tensor.dtype, tensor.file, offset, nbytes, first)


def _gaps(covered: Iterable[Span], elements: int) -> Iterator[Span]:
    position = 0
    for start, stop in sorted(covered):
        if start > position:
            yield position, start
        position = max(position, stop)
    if position < elements:
        yield position, elements


def _tasks(checkpoint: Checkpoint, chunks: Iterable[Chunk], limits: Limits, pending: int) -> Iterator[Task]:
    most = _task_bytes(limits, pending)
    group: list[Chunk] = []
    key = size = 0
    for chunk in chunks:
        if group and (size + chunk.nbytes > most or chunk.file != group[0].file):
            yield _task(key, checkpoint, group, limits)
            group, key, size = [], key + 1, 0
        group.append(chunk)
        size += chunk.nbytes
    if group:
        yield _task(key, checkpoint, group, limits)


def _task(key: int, checkpoint: Checkpoint, group: list[Chunk], limits: Limits) -> Task:
    codings = {c.name for chunk in group if (c := checkpoint.tensors[chunk.tensor].kind.coding)}
    block = min(limits.block_bytes, -(-max(chunk.nbytes for chunk in group) // 8) * 8)
    tables = sum(COUNTER_BYTES.get(name, 0) for name in codings)
    files = (checkpoint.files[group[0].file],)
    local = tuple(Chunk(c.tensor, c.name, c.dtype, 0, c.offset, c.nbytes, c.first) for c in group)
    passing = limits.cache_bytes is not None and checkpoint.nbytes > limits.cache_bytes
    return Task(key, files, local, block, block + tables + RESULT_BYTES, passing)


def _refuse(
    checkpoint: Checkpoint, tasks: tuple[Task, ...], limits: Limits, projected: int, each: int
) -> None:
    message = (
        f"would take {projected / MIB:,.0f} MiB, over the limit of "
        f"{(limits.memory_bytes or 0) / MIB:,.0f} MiB: {BASE_BYTES / MIB:,.0f} MiB for the process"
    )
    if tasks:
        worst = max(tasks, key=lambda t: t.projected_bytes)
        message += (
            f", and for each of {min(limits.workers, len(tasks))} workers up to {each / MIB:,.0f} MiB "
            f"(task {worst.key}, which begins with {worst.chunks[0].name!r})"
        )
    raise BudgetError(message, file=checkpoint.uri)
