"""Claims a GPU and its memory, and says what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import TypeVar

import torch

from engine.errors import DeviceError, first_line
from engine.kernels.cuda import native
from engine.kernels.cuda.feed import Feed
from engine.kernels.cuda.tallies import CodeTally, FloatTally

T = TypeVar("T")
_TURNS = count()


def lacks() -> str | None:
    """What is missing for counting on a GPU, None when nothing is."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    try:
        if native.is_available(torch.device("cuda")):
            return None
    except RuntimeError as error:  # of a driver that does not start
        return first_line(error)
    if not find_spec("triton"):
        return "neither NVRTC nor triton is installed"
    from engine.kernels.cuda.rows import why_not

    why = why_not("cuda")
    return None if why is None else f"no kernels of NVRTC, and Triton's do not run: {why}"


def next_gpu() -> tuple[str, str]:
    """The GPUs of this process in turn, one for each worker: torch's name, and what it is called."""
    number = next(_TURNS) % torch.cuda.device_count()
    return f"cuda:{number}", torch.cuda.get_device_name(number)


def use(device: str) -> None:
    """Let this thread launch what names no device on a GPU; other threads keep theirs.

    Raises:
        RuntimeError: the GPU is there and cannot be used: it is full, or somebody else has it for himself.
    """
    place = torch.device(device)
    if place.type != "cuda":
        return
    if place.index is not None:  # `cuda` is the current one
        torch.cuda.set_device(place)
    torch.cuda.synchronize()  # now, and not in the first task: it makes the context


def tally(bits: int, device: str) -> CodeTally | FloatTally | None:
    """Counts of patterns of 8 or 16 bits, or sums of wider floats; None when there is no memory for them."""
    return tried(lambda: new_tally(bits, torch.device(device)))


def new_tally(bits: int, device: torch.device) -> CodeTally | FloatTally:
    """The same; torch's OutOfMemoryError is raised when there is no memory for them."""
    return FloatTally(device) if bits > 16 else CodeTally(bits, device)


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
    except (RuntimeError, DeviceError) as error:  # pinned memory and kernels fail with the driver's words
        if "out of memory" not in str(error):
            raise
        return None
