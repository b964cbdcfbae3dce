"""Counters of every device, and the one of a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.device.bands import GpuBands
from engine.device.pairs import Pairs, ValueTables
from engine.nouns.dtypes import DTYPES, Coding, Dtype
from engine.nouns.matrices import Matrix
from engine.sketch import Counter, Sketch, as_f32_patterns, from_totals

if TYPE_CHECKING:
    from engine.kernels.cuda.feed import Feed, Slot
    from engine.kernels.cuda.tallies import CodeTally, FloatTally
    from engine.kernels.cuda.tensors import Tensor

BLOCK = 16 << 20
"""Bytes that travel to the GPU at once."""

SMALLEST_BLOCK = 1 << 20
"""With less, the CPU counts."""

Report = Callable[[str], None]
Fill = Callable[[Any, int, int], None]
Block = NDArray[np.uint8]
_F32 = DTYPES["F32"]


class AnyCounter(Protocol):
    """What counters of every device have; see `engine.sketch.Counter`."""

    dtype: Dtype
    coding: Coding

    def room(self) -> Block | None: ...  # noqa: D102

    def measure(self, matrix: Matrix, first: int) -> bool: ...  # noqa: D102

    def add(self, block: Block) -> None: ...  # noqa: D102

    def add_zeros(self, count: int) -> None: ...  # noqa: D102

    def sketch(self) -> Sketch: ...  # noqa: D102


def warn(message: str) -> None:
    """Report by a warning."""
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def make_counter(
    dtype: Dtype, device: str = "cpu", *, block: int | None = None, report: Report = warn
) -> AnyCounter:
    """Make a counter.

    Too little memory on the GPU makes the blocks that travel smaller, and in the end leaves the counting to
    the CPU.

    Args:
        dtype: an entry of `DTYPES` that has a coding.
        device: `cpu`, or a GPU's name, such as `cuda` or `cuda:1`.
        block: bytes that travel at once; None for BLOCK.
        report: is told when the GPU's memory does not suffice.

    Raises:
        ValueError: the dtype is not counted.
    """
    if dtype.coding is None:
        raise ValueError(f"{dtype.name} is not counted: {dtype.reason}")
    claimed = None if device == "cpu" else claim(dtype, device, block or BLOCK, report)
    return Counter(dtype) if claimed is None else GpuCounter(dtype, device, *claimed, report=report)


class GpuCounter:
    """Counts like `engine.sketch.Counter`, on a GPU.

    Blocks are gathered in pinned memory and travel as they are on disk, except F64, which is rounded before.

    Args:
        dtype: an entry of `DTYPES` that has a coding.
        device: such as `cuda:1`.
        tally: where the counts grow.
        feed: brings the blocks there.
        report: is told when the GPU's memory does not suffice.
    """

    def __init__(
        self, dtype: Dtype, device: str, tally: CodeTally | FloatTally, feed: Feed, *, report: Report = warn
    ) -> None:
        assert dtype.coding is not None
        self.dtype, self.coding = dtype, dtype.coding
        self._device, self._tally, self._feed, self._report = device, tally, feed, report
        self._slot: Slot | None = None
        self._filled = self._zeros = 0
        self._tables = ValueTables(device)
        self._pairs: Pairs | None = None
        self._bands: GpuBands | None = None
        self._most = feed.nbytes  # bytes of a block; with bands, of whole ones
        self._settle: dict[Slot, Callable[[], None]] = {}
        self._multiplies = True

    def room(self) -> Block | None:
        """Pinned memory that is best for the next elements: `add` does not copy what lies at its beginning.

        Returns:
            some bytes, a multiple of 8; None for F64, and where they would not be aligned.
        """
        if self.dtype.bits == 64:
            return None
        self._end_pairs()
        room = self._room()
        return room if self._filled % 8 == 0 else None

    def _room(self) -> Block:
        if self._slot is None:
            self._slot, self._filled = self._feed.next(), 0
            self._take(self._slot)
        return self._slot.block[self._filled : self._most]

    def add(self, block: Block) -> None:
        """Count a block of whole little-endian elements, as bytes.

        They are copied before it returns, unless they lie in the `room`.
        """
        if self.dtype.bits == 64:
            block = as_f32_patterns(block, self.dtype).view(np.uint8)
        self._end_pairs()
        start = 0
        while start < block.size:
            room = self._room()
            part = block[start : start + room.size]
            if _address(part) != _address(room):
                room[: part.size] = part
            start += part.size
            self._filled += part.size
            if part.size == room.size:
                self._send()

    def _send(self) -> None:
        if self._slot is not None and self._filled:
            self._work(self._slot, self._filled)
        self._slot, self._filled = None, 0

    def _work(self, slot: Slot, nbytes: int) -> None:
        bands = self._bands
        if bands is None:
            slot.send(nbytes, self._tally.add)
            return
        strips: list[Any] = []

        def work(data: Tensor) -> None:
            self._tally.add(data)
            strips.append(bands.begin(data))

        slot.send(nbytes, work)
        self._settle[slot] = bands.sent(slot.block[:nbytes], strips)

    def _take(self, slot: Slot) -> None:
        """Take what was found of a slot's last block, before it is filled again."""
        if (settle := self._settle.pop(slot, None)) is not None:
            slot.join()
            settle()

    def measure(self, matrix: Matrix, first: int) -> bool:
        """Find out the bands of a matrix too, until the next sketch, while its elements are counted.

        Args:
            matrix: whose elements follow.
            first: index of the first of them.

        Returns:
            whether it does: the elements must begin where a band does, and a block must hold a band.
        """
        bits = min(self.dtype.bits, 32)
        band = matrix.start(1) * bits // 8
        if first % matrix.start(1) or band > self._feed.nbytes or not self._has_triton():
            return False
        self._send()
        self._end_pairs()
        dtype = self.dtype if bits == self.dtype.bits else _F32
        self._bands = GpuBands(matrix, first, dtype, self._tables, self._report)
        self._most = self._feed.nbytes // band * band if matrix.bands > 1 else self._feed.nbytes
        return True

    def _has_triton(self) -> bool:
        """Whether the loops that are in Triton alone run; if they should and do not, it is reported."""
        if find_spec("triton") is None:
            return False
        from engine.kernels.cuda.rows import why_not

        why = why_not(self._device)
        if why is not None:
            self._report(
                f"Triton does not run on {self._device} ({why}): rows and columns are measured on the CPU"
            )
        return why is None

    def _end_pairs(self) -> None:
        if self._pairs is not None:
            self._pairs.send()

    def add_zeros(self, count: int) -> None:
        """Count so many elements that are +0."""
        self._zeros += count

    def subtract(self, tuned: Block, tuned_dtype: Dtype, base: Block, base_dtype: Dtype) -> None:
        """Count tuned - base in float32; of a counter of F32.

        A difference is one IEEE subtraction without flushing to zero; F64 is rounded to float32 before. One
        that is NaN counts as 0x7FC00000.

        Args:
            tuned: whole little-endian elements, as bytes; they are copied before it returns.
            tuned_dtype: an entry of `DTYPES` that has a coding.
            base: as many.
            base_dtype: likewise.
        """
        assert self._bands is None, "bands are of what is counted as it lies"
        self._send()
        if self._pairs is None:
            self._pairs = Pairs(self._tally, self._feed, self._tables)  # type: ignore[arg-type]
        self._pairs.add(tuned, tuned_dtype, base, base_dtype)

    def multiply(self, left: NDArray[np.float32], right: NDArray[np.float32], scale: float) -> bool:
        """Count scale * (left @ right); of a counter of F32. The product is stored nowhere.

        Every element is a chain of float32 fused multiply-adds over the rank, in order, then times `scale` in
        float32: the bits of `engine.kernels.products`. One that is NaN counts as 0x7FC00000.

        Args:
            left: (rows, rank) float32.
            right: (rank, columns) float32.
            scale: rounded to float32.

        Returns:
            whether it was done; False where the GPU's memory does not suffice.
        """
        from engine.kernels.cuda import claims, tensors

        def work() -> bool:
            b, a = (tensors.to_device(np.ascontiguousarray(f), self._device) for f in (left, right))
            self._tally.add_product(b, a, scale)  # type: ignore[union-attr]
            return True

        done = self._multiplies and claims.tried(work) is not None
        if self._multiplies and not done:
            self._multiplies = False
            self._report(f"no memory left on {self._device}: products are formed on the CPU")
        return done

    def receive(self, nbytes: int, fill: Fill) -> None:
        """Count elements that somebody else brings into the GPU's memory; not of F64.

        Args:
            nbytes: how many bytes, whole elements.
            fill: brings the next ones: to where, how many, and how many were brought before.
        """
        assert self._bands is None, "the host does not see these elements"
        self._send()
        self._end_pairs()
        for done in range(0, nbytes, self._feed.nbytes):
            slot, size = self._feed.next(), min(self._feed.nbytes, nbytes - done)
            self._take(slot)
            fill(slot.memory(size), size, done)
            slot.begin(size, self._tally.add)

    def sketch(self) -> Sketch:
        """Hand out what was counted so far, and start again from nothing.

        Raises:
            TaskError: more elements share a code than the sum of squares has room for.
        """
        self._send()
        self._end_pairs()
        self._feed.join()
        bands, self._bands, self._most = self._bands, None, self._feed.nbytes
        for slot in list(self._settle):  # in the order in which they were sent
            self._take(slot)
        added, self._zeros = self._zeros, 0
        totals, zeros, low, high = self._tally.take()
        totals[0, 0] += np.uint64(added)
        if added:
            zeros, low, high = zeros + added, min(0.0, low), max(0.0, high)
        sketch = from_totals(self.coding, totals, zeros, low, high)
        return sketch if bands is None else replace(sketch, bands=bands.bands())


def _address(block: Block) -> int:
    return int(block.__array_interface__["data"][0])


def claim(
    dtype: Dtype, device: str, block: int, report: Report
) -> tuple[CodeTally | FloatTally, Feed] | None:
    """Claim a GPU's memory for counts and for blocks that travel; tell `report` when it does not suffice.

    Args:
        dtype: what is counted.
        device: the GPU.
        block: bytes of a block.
        report: is told.
    """
    from engine.kernels.cuda import claims

    tally, what = claims.tally(dtype.bits, device), dtype.name
    feed = claims.feed(device, block, min(block, SMALLEST_BLOCK)) if tally is not None else None
    if tally is None or feed is None:
        report(f"no memory left on {device}: {what} is counted on the CPU")
        return None
    if feed.nbytes < block:
        report(f"little memory left on {device}: {what} travels in blocks of {feed.nbytes:,} bytes")
    return tally, feed
