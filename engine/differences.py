"""Float32 differences and low-rank products, counted as they are formed and stored nowhere whole.

A difference is one IEEE subtraction in float32 without flushing to zero, whatever the two dtypes; F64 is
rounded to float32 before. One that is NaN counts as 0x7FC00000, because the payload of a NaN depends on the
processor. Elements that are equal are the `zeros` of the sketch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.device import BLOCK, Report, claim, warn
from engine.errors import TaskError
from engine.kernels import differences
from engine.nouns.dtypes import DTYPES, F32, Dtype, code_table
from engine.sketch import Counter, Sketch, as_f32, as_f32_patterns, from_totals

if TYPE_CHECKING:
    from engine.kernels.cuda.tensors import Tensor


class DifferenceCounter:
    """Counts the differences of blocks of elements on the CPU.

    Args:
        a: dtype of the elements from which is subtracted, an entry of `DTYPES` that has a coding.
        b: dtype of those that are.
    """

    def __init__(self, a: Dtype, b: Dtype) -> None:
        self._a, self._b = a, b
        self._counter = Counter(DTYPES["F32"])

    def add(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
        """Count the differences of as many whole little-endian elements, given as bytes."""
        floats = as_f32(a, self._a)
        patterns = np.empty(floats.size, np.uint32)
        differences.subtract_f32(floats, as_f32(b, self._b), patterns)
        self._counter.add(patterns.view(np.uint8))

    def sketch(self) -> Sketch:
        """Hand out what was counted so far, and start again from nothing."""
        return self._counter.sketch()


class GpuDifferenceCounter:
    """Counts the differences of blocks of elements on a GPU. Blocks travel as they are on disk.

    Args:
        a: dtype of the elements from which is subtracted, an entry of `DTYPES` that has a coding.
        b: dtype of those that are.
        device: such as `cuda`.
        block: bytes that travel at once.
        report: is told when the GPU's memory does not suffice; then the CPU counts.
    """

    def __init__(
        self, a: Dtype, b: Dtype, device: str = "cuda", *, block: int = BLOCK, report: Report = warn
    ) -> None:
        self._a, self._b, self._device = a, b, device
        from engine.kernels.cuda import claims

        claimed = claim(claims.float_tally, device, block, report, "a difference")
        self._cpu = DifferenceCounter(a, b) if claimed is None else None
        if claimed is not None:
            self._tally, self._feed = claimed
            self._values = _value_table(a, device), _value_table(b, device)

    def add(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
        """Count the differences of as many whole little-endian elements, given as bytes."""
        if self._cpu is not None:
            self._cpu.add(a, b)
            return
        a, b = _at_most_32_bits(a, self._a), _at_most_32_bits(b, self._b)
        widths = min(self._a.bits, 32) // 8, min(self._b.bits, 32) // 8
        step = self._feed.nbytes // sum(widths) // 16 * 16
        for start in range(0, a.size // widths[0], step):
            self._send(*(x[start * w : (start + step) * w] for x, w in zip((a, b), widths, strict=True)))

    def _send(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
        slot = self._feed.next()
        middle = -(-a.size // 16) * 16
        slot.block[: a.size], slot.block[middle : middle + b.size] = a, b
        slot.send(middle + b.size, lambda data: self._work(data[: a.size], data[middle:]))

    def _work(self, a: Any, b: Any) -> None:
        self._tally.add_difference(a, _kind(self._a), b, _kind(self._b), self._values)

    def add_resident(self, a: Tensor, b: Tensor) -> None:
        """Count the differences of two tensors of the counter's dtypes on its GPU, where they lie.

        Raises:
            ValueError: their dtypes or sizes are others.
        """
        from engine.kernels.cuda import tensors

        names = self._a.name, self._b.name
        if (tensors.name_of(a), tensors.name_of(b)) != names or a.shape != b.shape:
            raise ValueError(f"differences of {names} were given {a.dtype} {a.shape} and {b.dtype} {b.shape}")
        x, y = tensors.flat_bytes(a), tensors.flat_bytes(b)
        if self._cpu is not None:
            self._cpu.add(x.cpu().numpy(), y.cpu().numpy())
            return
        wide = 64 in (self._a.bits, self._b.bits)
        pairs = zip(
            tensors.parts(x, self._a.bits // 8, wide), tensors.parts(y, self._b.bits // 8, wide), strict=True
        )
        for part_a, part_b in pairs:
            self._work(part_a, part_b)

    def sketch(self) -> Sketch:
        """Hand out what was counted so far, and start again from nothing."""
        if self._cpu is not None:
            return self._cpu.sketch()
        self._feed.join()
        return from_totals(F32, *self._tally.take())


def product(b: Tensor, a: Tensor, scale: float = 1.0) -> Sketch:
    """Sketch scale * (b @ a) on the GPU that holds the factors; the product is stored nowhere.

    Every element is a chain of float32 fused multiply-adds over the rank, in order, then times `scale` in
    float32. One that is NaN counts as 0x7FC00000.

    Args:
        b: (rows, rank) of a float dtype of at most 32 bits.
        a: (rank, columns), likewise.
        scale: rounded to float32.

    Raises:
        ValueError: the shapes do not fit.
        TaskError: the GPU has no memory for the sums.
    """
    if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(f"shapes {tuple(b.shape)} and {tuple(a.shape)} do not multiply")
    from engine.kernels.cuda import claims

    tally = claims.float_tally(str(b.device))
    if tally is None:
        raise TaskError(f"no memory left on {b.device}")
    tally.add_product(b.float().contiguous(), a.float().contiguous(), scale)
    return from_totals(F32, *tally.take())


def _kind(dtype: Dtype) -> str:
    return {8: "f8", 32: "f32", 64: "f32"}.get(dtype.bits, dtype.name.lower())


def _at_most_32_bits(block: NDArray[np.uint8], dtype: Dtype) -> NDArray[np.uint8]:
    return as_f32_patterns(block, dtype).view(np.uint8) if dtype.bits == 64 else block


def _value_table(dtype: Dtype, device: str) -> Any:
    """The float32 values of an 8-bit dtype on the device, None for others."""
    from engine.kernels.cuda import tensors

    if dtype.bits != 8 or dtype.coding is None:
        return None
    return tensors.to_device(code_table(dtype.coding.name).value.astype(np.float32), device)
