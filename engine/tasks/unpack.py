"""From the stored bytes of a piece to its elements: decompress, and pick out what belongs to the tensor."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FormatError
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import View
from engine.nouns.tasks import Chunk

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

    claimed = _zstd_size(bytes(data[:18]))
    if claimed != size:
        raise ValueError(f"its frame holds {claimed:,} bytes, expected {size:,}")
    return Zstd().decode(data, np.empty(size, np.uint8))


def _zstd_size(head: bytes) -> int:
    """How many bytes a frame says that it holds: RFC 8878, section 3.1.1.1."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
        raise ValueError("it does not begin as a frame")
    flags = head[4]
    single, width = flags >> 5 & 1, (0, 2, 4, 8)[flags >> 6]
    width = width or single
    if not width:
        raise ValueError("its frame does not say how many bytes it holds")
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(head[start : start + width], "little") + 256 * (width == 2)


def _blosc(data: Any, size: int) -> Any:
    from numcodecs.blosc import Blosc

    head = bytes(data[:16])  # version, flags, type size, then three lengths: whole, block, compressed
    whole, stored = int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little")
    if len(head) < 16 or (whole, stored) != (size, len(data)):
        raise ValueError(f"it says {stored:,} bytes for {whole:,}, and is {len(data):,} for {size:,}")
    return Blosc().decode(data, np.empty(size, np.uint8))


def _gzip(data: Any, size: int) -> Any:
    machine = zlib.decompressobj(wbits=31)
    plain = machine.decompress(data, size + 1)  # one byte more, to tell that there is more
    if len(plain) == size and (not machine.eof or machine.unused_data):
        raise ValueError("it does not end where it should")
    return plain


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
