"""From the stored bytes of a piece to its elements: decompress, and pick out what belongs to the tensor."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FormatError
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Chunk, View

CODECS = ("zstd", "gzip", "blosc", "crc32c")
"""What can be undone."""

_CHECKSUM = 4
_ITEMS = {8: "u1", 16: "<u2", 32: "<u4", 64: "<u8", 128: "V16"}


def unpack(stored: memoryview, chunk: Chunk, uri: str) -> Iterator[NDArray[np.uint8]]:
    """Bring out the elements of a chunk that is a piece.

    Args:
        stored: the piece's bytes.
        chunk: with the piece.
        uri: of the file, for messages.

    Yields:
        (n,) uint8, the bytes of whole elements.

    Raises:
        FormatError: it cannot be decompressed, or is not of the size that it should have.
    """
    piece = chunk.piece
    assert piece is not None
    plain: Any = stored
    for done, codec in enumerate(piece.codecs, 1):
        size = piece.memory + _CHECKSUM * piece.codecs[done:].count("crc32c")
        try:
            plain = _UNDO[codec](plain, size)
        except (RuntimeError, ValueError, zlib.error, EOFError, OSError) as error:
            message = f"its piece at byte {chunk.offset:,} cannot be decompressed by {codec}: {error}"
            raise FormatError(message, file=uri, tensor=chunk.name) from error
    data = np.frombuffer(plain, np.uint8)
    expected = piece.memory or piece.nbytes
    if data.size != expected:
        message = f"its piece at byte {chunk.offset:,} has {data.size:,} bytes, expected {expected:,}"
        raise FormatError(message, file=uri, tensor=chunk.name)
    if piece.view is None:
        yield data
    else:
        yield pick(data, piece.view, DTYPES[chunk.dtype].bits)


def pick(data: NDArray[np.uint8], view: View, bits: int) -> NDArray[np.uint8]:
    """Copy the elements of a view together.

    Args:
        data: (n,) uint8, which the view lies within.
        view: which elements.
        bits: of one element.

    Returns:
        (m,) uint8, their bytes in the view's order.
    """
    item = np.dtype(_ITEMS[bits])
    whole = data[: data.size // item.itemsize * item.itemsize].view(item)
    strides = tuple(s * item.itemsize for s in view.strides)
    chosen = np.lib.stride_tricks.as_strided(whole[view.start :], view.shape, strides, writeable=False)
    return np.ascontiguousarray(chosen).reshape(-1).view(np.uint8)


def _zstd(data: Any, size: int) -> Any:
    from numcodecs.zstd import Zstd

    return Zstd().decode(data, np.empty(size, np.uint8))


def _blosc(data: Any, size: int) -> Any:
    from numcodecs.blosc import Blosc

    return Blosc().decode(data, np.empty(size, np.uint8))


def _gzip(data: Any, size: int) -> Any:
    machine = zlib.decompressobj(wbits=31)
    return machine.decompress(data, size + 1)  # one byte more, to tell that there is more


def _crc32c(data: Any, _: int) -> Any:
    from google_crc32c import value

    body, checksum = memoryview(data)[:-_CHECKSUM], memoryview(data)[-_CHECKSUM:]
    if value(bytes(body)) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum differs")
    return body


_UNDO: dict[str, Callable[[Any, int], Any]] = {
    "zstd": _zstd,
    "blosc": _blosc,
    "gzip": _gzip,
    "crc32c": _crc32c,
}
