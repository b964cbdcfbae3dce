"""Counting where the elements are, or where it is fastest: the same integers on any device.

    choose("auto") -> "cuda" or "cpu";  make_counter(dtype, device) -> a counter, whatever the device

torch and triton load only when a GPU is asked for or a tensor is given.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.nouns.dtypes import DTYPES, Dtype
from engine.sketch import Counter, Sketch, as_f32_patterns, from_totals

if TYPE_CHECKING:
    from engine.kernels.cuda.feed import Feed, Slot
    from engine.kernels.cuda.tallies import CodeTally, FloatTally
    from engine.kernels.cuda.tensors import Tensor

DEVICES = ("auto", "cpu", "cuda")
BLOCK = 16 << 20
"""Bytes that travel to the GPU at once."""

SMALLEST_BLOCK = 1 << 20
"""With less, the CPU counts."""

T = TypeVar("T")
Report = Callable[[str], None]


class AnyCounter(Protocol):
    """What counters of every device have; see `engine.sketch.Counter`."""

    def add(self, block: NDArray[np.uint8]) -> None: ...  # noqa: D102

    def sketch(self) -> Sketch: ...  # noqa: D102


def warn(message: str) -> None:
    """Report by a warning."""
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def choose(device: str) -> str:
    """Decide where to count.

    Args:
        device: one of DEVICES. `auto` takes a GPU if torch sees one; where there is no driver, torch is not
            even loaded.

    Returns:
        `cpu` or `cuda`.

    Raises:
        ConfigError: there is no such device, or no GPU though one was asked for.
    """
    if device not in DEVICES:
        raise ConfigError(f"unknown device {device!r}; there are {', '.join(DEVICES)}")
    if device == "cpu":
        return "cpu"
    missing = _what_a_gpu_lacks()
    if missing and device == "cuda":
        raise ConfigError(f"cannot count on a GPU: {missing}")
    return "cpu" if missing else "cuda"


def _what_a_gpu_lacks() -> str | None:
    if find_spec("torch") is None:
        return "torch is not installed; install gaussmeter[gpu]"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    from engine.kernels.cuda.claims import lacks

    return lacks()


def make_counter(dtype: Dtype, device: str = "cpu", report: Report = warn) -> AnyCounter:
    """Make a counter.

    Args:
        dtype: an entry of `DTYPES` that has a coding.
        device: `cpu` or `cuda`, as `choose` says.
        report: is told when the GPU's memory does not suffice.

    Raises:
        ValueError: the dtype is not counted.
    """
    return Counter(dtype) if device == "cpu" else GpuCounter(dtype, device, report=report)


class GpuCounter:
    """Counts like `engine.sketch.Counter`, on a GPU.

    Blocks are gathered in pinned memory and travel as they are on disk, except F64, which is rounded before.
    Too little memory on the GPU makes the blocks smaller, and in the end leaves the counting to the CPU.

    Args:
        dtype: an entry of `DTYPES` that has a coding.
        device: such as `cuda` or `cuda:1`.
        block: bytes that travel at once.
        report: is told when the GPU's memory does not suffice.

    Raises:
        ValueError: the dtype is not counted.
    """

    def __init__(
        self, dtype: Dtype, device: str = "cuda", *, block: int = BLOCK, report: Report = warn
    ) -> None:
        if dtype.coding is None:
            raise ValueError(f"{dtype.name} is not counted: {dtype.reason}")
        self.dtype, self.coding = dtype, dtype.coding
        self._cpu: Counter | None = None
        self._slot: Slot | None = None
        self._filled = 0
        claimed: tuple[CodeTally | FloatTally, Feed] | None
        claimed = claim(_tally_of(dtype.bits), device, block, report, dtype.name)
        if claimed is None:
            self._cpu = Counter(dtype)
        else:
            self._tally, self._feed = claimed

    def add(self, block: NDArray[np.uint8]) -> None:
        """Count a block of whole little-endian elements, as bytes; they are copied before it returns."""
        if self._cpu is not None:
            self._cpu.add(block)
            return
        if self.dtype.bits == 64:
            block = as_f32_patterns(block, self.dtype).view(np.uint8)
        start = 0
        while start < block.size:
            room = self._room()
            part = block[start : start + room.size]
            room[: part.size] = part
            self.commit(part.size)
            start += part.size

    def buffer(self) -> NDArray[np.uint8]:
        """Pinned memory into which the next elements may be read directly; then `commit`. Not for F64.

        Raises:
            ValueError: the counting was left to the CPU, or F64.
        """
        if self._cpu is not None or self.dtype.bits == 64:
            raise ValueError("elements cannot be read directly into the GPU's buffers; use add")
        return self._room()

    def _room(self) -> NDArray[np.uint8]:
        if self._slot is None:
            self._slot, self._filled = self._feed.next(), 0
        return self._slot.block[self._filled :]

    def commit(self, nbytes: int) -> None:
        """Count the first bytes of what `buffer` gave, whole elements."""
        self._filled += nbytes
        if self._slot is not None and self._filled == self._feed.nbytes:
            self._send()

    def _send(self) -> None:
        if self._slot is not None and self._filled:
            self._slot.send(self._filled, self._tally.add)
            self._slot, self._filled = None, 0

    def add_resident(self, tensor: Tensor) -> None:
        """Count a tensor of the counter's dtype on the counter's GPU, where it lies.

        Raises:
            ValueError: another dtype.
        """
        from engine.kernels.cuda import tensors

        if (name := tensors.name_of(tensor)) != self.dtype.name:
            raise ValueError(f"a counter of {self.dtype.name} was given {name}")
        data = tensors.bytes_in_any_order(tensor)
        if self._cpu is not None:
            self._cpu.add(data.cpu().numpy())
        else:
            for part in tensors.parts(data, self.dtype.bits // 8, self.dtype.bits == 64):
                self._tally.add(part)

    def sketch(self) -> Sketch:
        """Hand out what was counted so far, and start again from nothing.

        Raises:
            TaskError: more elements share a code than the sum of squares has room for.
        """
        if self._cpu is not None:
            return self._cpu.sketch()
        self._send()
        self._feed.join()
        return from_totals(self.coding, *self._tally.take())


def claim(
    make_tally: Callable[[str], T | None], device: str, block: int, report: Report, what: str
) -> tuple[T, Feed] | None:
    """Claim a GPU's memory for counts and for blocks that travel; tell `report` when it does not suffice.

    Args:
        make_tally: makes the counts on a device, None when there is no memory.
        device: the GPU.
        block: bytes of a block.
        report: is told.
        what: is counted.
    """
    from engine.kernels.cuda import claims

    tally = make_tally(device)
    feed = claims.feed(device, block, min(block, SMALLEST_BLOCK)) if tally is not None else None
    if tally is None or feed is None:
        report(f"no memory left on {device}: {what} is counted on the CPU")
        return None
    if feed.nbytes < block:
        report(f"little memory left on {device}: {what} travels in blocks of {feed.nbytes:,} bytes")
    return tally, feed


def _tally_of(bits: int) -> Callable[[str], CodeTally | FloatTally | None]:
    from engine.kernels.cuda import claims

    def make(device: str) -> CodeTally | FloatTally | None:
        return claims.float_tally(device) if bits > 16 else claims.code_tally(bits, device)

    return make


def observe(tensor: Tensor, report: Report = warn) -> Sketch:
    """Sketch a torch tensor of a counted dtype, whatever its shape, on the GPU if it lies there.

    Args:
        tensor: of any device.
        report: is told when the GPU's memory does not suffice, and the CPU counts.

    Raises:
        ValueError: its dtype is not counted.
    """
    from engine.kernels.cuda import tensors

    dtype = DTYPES[tensors.name_of(tensor)]
    tally = None
    if tensor.device.type == "cuda":
        tally = _tally_of(dtype.bits)(str(tensor.device))
        if tally is None:
            report(f"no memory left on {tensor.device}: {dtype.name} is counted on the CPU")
    data = tensors.bytes_in_any_order(tensor)
    if tally is None or dtype.coding is None:
        on_cpu = Counter(dtype)
        on_cpu.add(data.cpu().numpy())
        return on_cpu.sketch()
    for part in tensors.parts(data, dtype.bits // 8, dtype.bits == 64):
        tally.add(part)
    return from_totals(dtype.coding, *tally.take())
