"""Tensors that are views of a storage: which bytes hold their elements.

The order of elements does not matter to a count, so a transposed matrix is one stretch of bytes like any
other. What has gaps, or repeats elements, is cut into pieces of a few MiB, each with the index arithmetic
of its elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from engine.nouns.records import Piece, View

PIECE_BYTES = 4 << 20
Dimension = tuple[int, int, int]
"""Length, stride in the storage and stride in the tensor, both in elements."""


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements lie between the first and the last of a view, both included; 0 for an empty one."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements lie side by side in C order."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements lie side by side, in any order, each once."""
    expected = 1
    for size, stride in sorted(_dimensions(shape, strides), key=lambda d: d[1]):
        if stride != expected:
            return False
        expected *= size
    return True


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements from one to the next along each dimension of a C-contiguous tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def view_pieces(
    file: int, offset: int, item: int, shape: Sequence[int], strides: Sequence[int], at: View
) -> tuple[Piece, ...]:
    """Cut a view into pieces.

    Args:
        file: of the pieces.
        offset: of the view's first element in the file, in bytes.
        item: bytes of an element.
        shape: of the view.
        strides: of the view, in elements.
        at: which elements of the tensor they are; of the same shape.

    Returns:
        pieces that hold each element of the view once, in an order of their own.
    """
    if 0 in shape:
        return ()
    triples = zip(shape, strides, at.strides, strict=True)
    dimensions = sorted((d for d in triples if d[0] != 1), key=lambda d: -d[1])
    return tuple(_cut(file, offset, item, dimensions, at.start))


def _dimensions(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    return [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]


def _cut(file: int, offset: int, item: int, dimensions: list[Dimension], at: int) -> Iterator[Piece]:
    """Cut along the widest dimension until what is left fits."""
    sizes, strides, places = (tuple(d[i] for d in dimensions) for i in range(3))
    spanned, elements = extent(sizes, strides) * item, prod(sizes)
    if max(spanned, elements * item) <= PIECE_BYTES or not dimensions:
        view, place = View(0, sizes, strides), View(at, sizes, places)
        yield Piece(file, offset, spanned, elements, view=view, at=place)
        return
    (size, stride, step), rest = dimensions[0], dimensions[1:]
    row = max(extent(sizes[1:], strides[1:]), prod(sizes[1:]), stride) * item
    group = max(1, PIECE_BYTES // row)
    for first in range(0, size, group):
        some = min(group, size - first)
        inner = [(some, stride, step), *rest] if group > 1 else rest
        yield from _cut(file, offset + first * stride * item, item, inner, at + first * step)
