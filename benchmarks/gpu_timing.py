"""What the GPU benchmarks share: times by device events, fills, the machine."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import triton

FILLS = ("gauss", "half zero", "constant", "uniform patterns")
WARM_UP = 3
_BUSY = 2_000_000  # cycles, about a millisecond


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of some work on the GPU, by events around it.

    The GPU is kept busy while the work is handed to it, so what Python needs for that is not counted.
    """
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(rounds):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(_BUSY)
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return median(times)


def copy_rate(nbytes: int, rounds: int) -> float:
    """Bytes a second of a copy within the GPU's memory, those read and those written."""
    source = torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * nbytes / seconds(lambda: target.copy_(source), rounds)


def filled(fill: str, dtype: torch.dtype, n: int, sigma: float = 0.02) -> torch.Tensor:
    """Elements of a fill.

    Args:
        fill: one of FILLS; for `uniform patterns` every pattern is as likely.
        dtype: a float dtype of torch.
        n: how many.
        sigma: of the Gaussian.
    """
    generator = torch.Generator("cuda").manual_seed(1)
    if fill == "uniform patterns":
        whole = torch.randint(
            0, 256, (n * dtype.itemsize,), dtype=torch.uint8, device="cuda", generator=generator
        )
        return whole.view(dtype)
    if fill == "constant":
        return torch.full((n,), sigma, device="cuda").to(dtype)
    out = torch.empty(n, dtype=dtype, device="cuda")
    for part in out.split(1 << 26):
        values = torch.randn(part.numel(), device="cuda", generator=generator) * sigma
        if fill == "half zero":
            values *= torch.rand(part.numel(), device="cuda", generator=generator) < 0.5
        part.copy_(values)
    return out


def machine() -> str:
    """The GPU and the libraries, as a line of Markdown."""
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    return (
        f"- GPU: one {properties.name}, {properties.multi_processor_count} multiprocessors, {memory:.0f} GiB"
        f"; torch {torch.__version__}, triton {triton.__version__}\n"
    )
