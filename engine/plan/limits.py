"""What to measure, and how to cut the work."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from engine.errors import BudgetError, ConfigError
from engine.nouns.defaults import RANGES

MIB = 1 << 20
TASK_BYTES = 256 * MIB
BLOCK_BYTES = MIB
RANGE_BYTES = 8 * MIB
SMALLEST_RANGE = MIB
RANGES_EACH = 16
"""So many requests one after the other keep a connection busy nearly all the time."""
SMALLEST_TASK = 8 * MIB
TASKS_PER_WORKER = 4
SHARE = 2
"""A worker with connections of its own reads one part in so many of its share of what is left."""
MOST_CHUNKS = 4_096

BASE_BYTES = 320 * MIB
"""Interpreter, libraries, warehouse and rows that wait to be written; measured, see BENCHMARKS.md."""
COUNTER_BYTES = {"bf16": 4 * MIB, "f16": 2 * MIB, "f32": 6 * MIB}
"""Tables of a worker for one coding; the 8-bit codings take next to nothing."""
REFINE_BYTES = 40 * MIB
"""Tables of a worker's second pass: up to 64 codes of 65,536 low halves and the power sums."""
RESULT_BYTES = 2 * MIB
"""The sketches of a finished task."""
TENSOR_BYTES = 20_000
"""What a tensor takes from its header to its rows; measured with 20,000 tensors."""
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
        range_bytes: how many bytes one of them asks for at the most.
        worker_bytes: memory of each worker apart from its task; 0 where workers are threads.
        device: what workers are asked to count on.
        device_bytes: memory that each takes more where it may count on a GPU.
    """

    workers: int = 1
    task_bytes: int | None = None
    block_bytes: int = BLOCK_BYTES
    memory_bytes: int | None = None
    cache_bytes: int | None = None
    ranges: int = RANGES
    range_bytes: int = RANGE_BYTES
    worker_bytes: int = 0
    device: str = "cpu"
    device_bytes: int = 0


def check_limits(limits: Limits) -> None:
    """Refuse limits that make no sense.

    Raises:
        ConfigError: for the first of them.
    """
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


@dataclass(frozen=True, slots=True)
class Fitted:
    """Limits that were fitted to a checkpoint: the same, with nothing left open.

    Attributes:
        workers, block_bytes, memory_bytes, cache_bytes, ranges: as in `Limits`.
        task_bytes: about how many bytes a task reads.
        range_bytes: how many bytes one request for a distant file asks for.
        worker_bytes: memory of each worker apart from its task.
        least_bytes: about how many bytes the last tasks read; None if all are of one size.
        device_bytes: as in `Limits`.
    """

    workers: int
    task_bytes: int
    block_bytes: int
    memory_bytes: int | None
    cache_bytes: int | None
    ranges: int
    range_bytes: int
    worker_bytes: int = 0
    least_bytes: int | None = None
    device_bytes: int = 0

    def next_bytes(self, left: int) -> int:
        """About how many bytes the next task reads, when so many are left."""
        if self.least_bytes is None:
            return self.task_bytes
        return min(self.task_bytes, max(self.least_bytes, left // (SHARE * self.workers)))


def fit(limits: Limits, pending: int, *, distant: bool) -> Fitted:
    """Fit limits to how much is to be read.

    A local checkpoint is cut so that every worker has several tasks. A distant one is cut into as few tasks
    as there are threads, if that does not make them too large, because at the end of a task fewer requests
    are under way. Processes have connections of their own, and while one is at its last task the others'
    would be idle: so tasks become smaller towards the end, down to one request for each connection. Requests
    are so small that each connection makes many of them, one after the other.

    Args:
        limits: what a caller says.
        pending: how many bytes are to be read.
        distant: whether they lie behind a network.

    Raises:
        ConfigError: the limits make no sense.
    """
    check_limits(limits)
    processes = limits.workers if limits.worker_bytes else 1
    fair = -(-pending // (limits.workers * (1 if distant else TASKS_PER_WORKER)))
    task_bytes = limits.task_bytes or min(TASK_BYTES, max(SMALLEST_TASK, fair))
    largest = limits.range_bytes
    while largest > SMALLEST_RANGE and largest * limits.ranges * processes * RANGES_EACH > pending:
        largest //= 2
    shrinking = distant and processes > 1 and limits.task_bytes is None
    return Fitted(
        limits.workers,
        task_bytes,
        limits.block_bytes,
        limits.memory_bytes,
        limits.cache_bytes,
        limits.ranges,
        max(8, largest // 8 * 8),
        limits.worker_bytes,
        max(SMALLEST_TASK, largest * limits.ranges) if shrinking else None,
        limits.device_bytes,
    )


def require_room(limits: Limits, projected: int, uri: str) -> None:
    """Refuse a plan that could take more memory than it may.

    Args:
        limits: with the limit.
        projected: bytes that it could take.
        uri: of what is planned, for the message.

    Raises:
        BudgetError: with both numbers.
    """
    if limits.memory_bytes is not None and projected > limits.memory_bytes:
        message = (
            f"would take {projected / MIB:,.0f} MiB, over the limit of {limits.memory_bytes / MIB:,.0f} MiB"
        )
        raise BudgetError(message, file=uri)
