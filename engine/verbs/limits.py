"""What a caller says of the work, and what is known of the executor and of this machine."""

from __future__ import annotations

from engine.device.choosing import host_bytes, settled
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
    nbytes: int | None = None,
) -> Limits:
    """Gather the limits of a run; arguments as for `engine.scan`, and how many bytes there are, if known."""
    device, processes = settled(executor.device, nbytes), executor.worker_bytes > 0
    more = host_bytes(executor.workers, processes=processes) if executor.might_count(device) else 0
    return Limits(
        executor.workers,
        task_bytes,
        block_bytes,
        memory_bytes,
        page_cache_bytes(),
        ranges,
        worker_bytes=executor.worker_bytes,
        device=device,
        device_bytes=more,
    )
