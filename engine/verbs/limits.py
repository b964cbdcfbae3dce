"""What a caller says of the work, and what is known of this machine."""

from __future__ import annotations

from engine.execution.in_process import InProcessExecutor
from engine.nouns.defaults import RANGES
from engine.plan import BLOCK_BYTES, Limits
from engine.storage import page_cache_bytes


def limits_here(
    workers: int | None,
    *,
    task_bytes: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
) -> Limits:
    """Gather the limits of a run on this machine; arguments as for `engine.scan`."""
    workers = InProcessExecutor(workers).workers
    return Limits(workers, task_bytes, block_bytes, memory_bytes, page_cache_bytes(), ranges)
