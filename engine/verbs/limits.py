"""What a caller says of the work, and what is known of the executor and of this machine."""

from __future__ import annotations

from engine.execution.executor import Executor
from engine.nouns.defaults import RANGES
from engine.plan import BLOCK_BYTES, Limits
from engine.storage import page_cache_bytes


def limits_of(
    executor: Executor,
    *,
    task_bytes: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
) -> Limits:
    """Gather the limits of a run; arguments as for `engine.scan`."""
    return Limits(
        executor.workers,
        task_bytes,
        block_bytes,
        memory_bytes,
        page_cache_bytes(),
        ranges,
        worker_bytes=executor.worker_bytes,
    )
