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
Dimension = tuple[int, int]
"""Length and stride in elements."""


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


def view_pieces(
    file: int, offset: int, item: int, shape: Sequence[int], strides: Sequence[int]
) -> tuple[Piece, ...]:
    """Cut a view into pieces.

    Args:
        file: of the pieces.
        offset: of the view's first element in the file, in bytes.
        item: bytes of an element.
        shape: of the view.
        strides: of the view, in elements.

    Returns:
        pieces that hold each element of the view once, in an order of their own.
    """
    elements = prod(shape)
    if not elements:
        return ()
    if is_dense(shape, strides):
        return (Piece(file, offset, elements * item, elements),)
    dimensions = sorted(_dimensions(shape, strides), key=lambda d: -d[1])
    return tuple(_cut(file, offset, item, dimensions))


def _dimensions(shape: Sequence[int], strides: Sequence[int]) -> list[Dimension]:
    return [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]


def _cut(file: int, offset: int, item: int, dimensions: list[Dimension]) -> Iterator[Piece]:
    """Cut along the widest dimension until what is left fits."""
    sizes, strides = [d[0] for d in dimensions], [d[1] for d in dimensions]
    spanned, elements = extent(sizes, strides) * item, prod(sizes)
    if max(spanned, elements * item) <= PIECE_BYTES or not dimensions:
        view = View(0, tuple(sizes), tuple(strides))
        yield Piece(file, offset, spanned, elements, view=view)
        return
    (size, stride), rest = dimensions[0], dimensions[1:]
    row = max(extent([d[0] for d in rest], [d[1] for d in rest]), prod(d[0] for d in rest), stride) * item
    group = max(1, PIECE_BYTES // row)
    for first in range(0, size, group):
        some = min(group, size - first)
        place = offset + first * stride * item
        if some > 1 or group > 1:
            yield from _cut(file, place, item, [(some, stride), *rest])
        else:
            yield from _cut(file, place, item, rest)
