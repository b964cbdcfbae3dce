"""Claims a GPU and its memory, and says what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TypeVar

import torch

from engine.kernels.cuda import native
from engine.kernels.cuda.feed import Feed
from engine.kernels.cuda.tallies import CodeTally, FloatTally

T = TypeVar("T")


def lacks() -> str | None:
    """What is missing for counting on a GPU, None when nothing is."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if native.is_available(torch.device("cuda")) or find_spec("triton"):
        return None
    return "neither NVRTC nor triton is installed"


def code_tally(bits: int, device: str) -> CodeTally | None:
    """Counts of 8- or 16-bit patterns; None when the GPU has no memory for them."""
    return _claim(lambda: CodeTally(bits, torch.device(device)))


def float_tally(device: str) -> FloatTally | None:
    """Sums of 32-bit floats; None when the GPU has no memory for them."""
    return _claim(lambda: FloatTally(torch.device(device)))


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
        made = _claim(partial(Feed, torch.device(device), nbytes))
        nbytes = nbytes // 16 * 8
    return made


def _claim(make: Callable[[], T]) -> T | None:
    try:
        return make()
    except torch.OutOfMemoryError:
        return None
