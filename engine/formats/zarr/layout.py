"""How a tensor is cut into the chunks and shards of a Zarr array.

A shard is a stretch of the tensor in C order, so that a shard of a packed tensor is one byte range of the
source, and a chunk one of the shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Span, TensorInfo

CHUNK_BYTES = 4 << 20
CHUNKS_PER_SHARD = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor is cut.

    Attributes:
        shape: of the tensor.
        cut: the dimension along which it is cut; those before it are cut into single indices.
        chunk: how many indices of that dimension a chunk has.
        shard: how many a shard has, a multiple.
    """

    shape: tuple[int, ...]
    cut: int
    chunk: int
    shard: int

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return self._of(self.chunk)

    @property
    def shard_shape(self) -> tuple[int, ...]:
        """Shape of a shard."""
        return self._of(self.shard)

    def _of(self, count: int) -> tuple[int, ...]:
        rest = tuple(max(1, s) for s in self.shape[self.cut + 1 :])
        return (1,) * self.cut + (count,) + rest if self.shape else ()

    def spans(self) -> Iterator[Span]:
        """The elements of each shard, in C order."""
        if not self.shape:
            yield 0, 1
            return
        inner = prod(self.shape[self.cut + 1 :])
        for outer in range(prod(self.shape[: self.cut])):
            for first in range(0, self.shape[self.cut], self.shard):
                last = min(first + self.shard, self.shape[self.cut])
                begin = outer * self.shape[self.cut]
                yield (begin + first) * inner, (begin + last) * inner

    def region(self, span: Span) -> tuple[int | slice, ...]:
        """Where the elements of a shard are in the array."""
        if not self.shape:
            return ()
        inner = prod(self.shape[self.cut + 1 :])
        outer, first = divmod(span[0] // inner, self.shape[self.cut])
        last = first + (span[1] - span[0]) // inner
        lead = np.unravel_index(outer, self.shape[: self.cut]) if self.cut else ()
        return (*map(int, lead), slice(first, last))


def layout_of(shape: tuple[int, ...], item: int) -> Layout:
    """Cut a tensor into chunks of about 4 MiB that are stretches of it, and shards of a few chunks."""
    if not shape:
        return Layout((), 0, 1, 1)
    cut = 0
    while cut < len(shape) - 1 and prod(shape[cut + 1 :]) * item > CHUNK_BYTES:
        cut += 1
    row = max(1, prod(shape[cut + 1 :])) * item
    length = max(1, shape[cut])
    chunk = min(max(1, CHUNK_BYTES // row), length)
    shard = chunk * min(CHUNKS_PER_SHARD, -(-length // chunk))
    return Layout(shape, cut, chunk, shard)


_PLAIN_NAME = re.compile(r"(?!__|\.)[A-Za-z0-9_.\-]{1,200}")
_NUMPY = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool", "C64": "complex64",
    "C128": "complex128",
    **{f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip
LOGICAL_OF = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


def stored_form(tensor: TensorInfo) -> tuple[str, tuple[int, ...], int] | None:
    """How a tensor is stored: dtype of numpy, shape and bytes an element; None when there is no way."""
    bits = DTYPES[tensor.dtype].bits
    if tensor.dtype in _NUMPY:
        return _NUMPY[tensor.dtype], tensor.shape, bits // 8
    if tensor.dtype in LOGICAL_OF:
        return f"uint{bits}", tensor.shape, bits // 8
    return None


def array_path(ordinal: int, name: str) -> str:
    """The path of a tensor's array: its name where that can be one."""
    return name if _PLAIN_NAME.fullmatch(name) and name != "zarr.json" else f"tensor-{ordinal:05d}~"


def shape_of(layout: Layout, region: tuple[int | slice, ...]) -> tuple[int, ...]:
    """Shape of the elements of a region."""
    if not region:
        return layout.shape
    last = region[-1]
    assert isinstance(last, slice)
    return (last.stop - last.start, *layout.shape[layout.cut + 1 :])
