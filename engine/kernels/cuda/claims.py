"""Claims a GPU and its memory, and says what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import TypeVar

import torch

from engine.kernels.cuda import native
from engine.kernels.cuda.feed import Feed
from engine.kernels.cuda.tallies import CodeTally, FloatTally

T = TypeVar("T")
_TURNS = count()


def lacks() -> str | None:
    """What is missing for counting on a GPU, None when nothing is."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if native.is_available(torch.device("cuda")) or find_spec("triton"):
        return None
    return "neither NVRTC nor triton is installed"


def next_gpu() -> tuple[str, str]:
    """The GPUs of this process in turn, one for each worker: torch's name, and what it is called."""
    number = next(_TURNS) % torch.cuda.device_count()
    return f"cuda:{number}", torch.cuda.get_device_name(number)


def use(device: str) -> None:
    """Let this thread launch what names no device on a GPU; other threads keep theirs."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)


def tally(bits: int, device: str) -> CodeTally | FloatTally | None:
    """Counts of patterns of 8 or 16 bits, or sums of wider floats; None when there is no memory for them."""
    place = torch.device(device)
    return tried(lambda: FloatTally(place) if bits > 16 else CodeTally(bits, place))


def feed(device: str, largest: int, smallest: int) -> Feed | None:
    """A feed with blocks as large as the GPU has memory for.

    Args:
        device: where the blocks go.
        largest: bytes of the first try, a multiple of 8.
        smallest: bytes of the last.

    Returns:
        None when even the smallest is too much.
    """
    nbytes, made = largest, None
    while made is None and nbytes >= smallest:
        made = tried(partial(Feed, torch.device(device), nbytes))
        nbytes = nbytes // 16 * 8
    return made


def tried(work: Callable[[], T]) -> T | None:
    """What some work gives; None when the GPU, or the memory that is pinned for it, has no room for it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:  # pinned memory fails with the driver's words
        if "out of memory" not in str(error):
            raise
        return None
