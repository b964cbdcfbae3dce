"""Elements of two tensors that travel to a GPU side by side, to be subtracted there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.nouns.dtypes import Dtype, code_table
from engine.sketch import as_f32_patterns

if TYPE_CHECKING:
    from engine.kernels.cuda.feed import Feed, Slot
    from engine.kernels.cuda.tallies import FloatTally

_WORD = 16  # bytes; where the second half of a block begins
Kinds = tuple[Dtype, Dtype]


class Pairs:
    """Gathers pairs of elements, and has their differences counted.

    Args:
        tally: where they are counted.
        feed: brings them there.
        tables: values of 8-bit dtypes there.
    """

    def __init__(self, tally: FloatTally, feed: Feed, tables: ValueTables) -> None:
        self._tally, self._feed, self._tables = tally, feed, tables
        self._kinds: Kinds | None = None
        self._slot: Slot | None = None
        self._most = self._filled = 0

    def add(self, a: NDArray[np.uint8], a_dtype: Dtype, b: NDArray[np.uint8], b_dtype: Dtype) -> None:
        """Count the differences a - b of as many whole elements each, as bytes."""
        if self._kinds != (a_dtype, b_dtype):
            self.send()
            self._kinds = a_dtype, b_dtype
            self._most = self._feed.nbytes // sum(self._widths) // _WORD * _WORD
        a, b = _at_most_32_bits(a, a_dtype), _at_most_32_bits(b, b_dtype)
        (width_a, width_b), done = self._widths, 0
        count = a.size // width_a
        while done < count:
            self._slot = self._slot or self._feed.next()
            taken = min(count - done, self._most - self._filled)
            begin, middle = self._filled, self._most * width_a
            part_a = a[done * width_a : (done + taken) * width_a]
            part_b = b[done * width_b : (done + taken) * width_b]
            self._slot.block[begin * width_a : (begin + taken) * width_a] = part_a
            self._slot.block[middle + begin * width_b : middle + (begin + taken) * width_b] = part_b
            self._filled, done = begin + taken, done + taken
            if self._filled == self._most:
                self.send()

    @property
    def _widths(self) -> tuple[int, int]:
        """Bytes of an element of each, as it travels."""
        assert self._kinds is not None
        return min(self._kinds[0].bits, 32) // 8, min(self._kinds[1].bits, 32) // 8

    def send(self) -> None:
        """Count what was gathered."""
        if self._slot is None or self._kinds is None:
            return
        (width_a, width_b), count = self._widths, self._filled
        middle, names = self._most * width_a, tuple(map(kind_of, self._kinds))
        values = tuple(map(self._tables.of, self._kinds))

        def work(data: Any) -> None:
            self._tally.add_difference(data[: count * width_a], names[0], data[middle:], names[1], values)

        self._slot.send(middle + count * width_b, work)
        self._slot, self._filled = None, 0


class ValueTables:
    """The float32 values of 8-bit dtypes, on a device.

    Args:
        device: the GPU.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._tables: dict[str, Any] = {}

    def of(self, dtype: Dtype) -> Any:
        """The values of a dtype's codes, (256,); None for wider dtypes."""
        from engine.kernels.cuda import tensors

        if dtype.bits != 8 or dtype.coding is None:
            return None
        if dtype.name not in self._tables:
            values = code_table(dtype.coding.name).value.astype(np.float32)
            self._tables[dtype.name] = tensors.to_device(values, self._device)
        return self._tables[dtype.name]


def kind_of(dtype: Dtype) -> str:
    """What the kernels call a dtype, as it travels."""
    return {8: "f8", 32: "f32", 64: "f32"}.get(dtype.bits, dtype.name.lower())


def _at_most_32_bits(block: NDArray[np.uint8], dtype: Dtype) -> NDArray[np.uint8]:
    return as_f32_patterns(block, dtype).view(np.uint8) if dtype.bits == 64 else block
