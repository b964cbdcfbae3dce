"""A stretch of a file as a file object, for libraries that want one."""

from __future__ import annotations

import io
from typing import Any

from engine.storage.reader import Reader, read_bytes

_WINDOW = 256 << 10


class ReaderStream(io.RawIOBase):
    """Bytes `start` to `start + length` of a file, read in windows of 256 KiB and sought freely.

    Args:
        reader: the open file.
        start: the first byte.
        length: how many bytes.
    """

    def __init__(self, reader: Reader, start: int, length: int) -> None:
        super().__init__()
        self._reader, self._start, self._length = reader, start, length
        self._position = 0
        self._window = (0, b"")

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought: yes."""
        return True

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere else; see `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError("cannot seek before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what the window holds, after moving it where needed; errors as for `Reader.read_into`."""
        view = memoryview(buffer)
        left = min(len(view), self._length - self._position)
        if left <= 0:
            return 0
        first, held = self._window
        if not first <= self._position < first + len(held):
            first = self._where()
            held = read_bytes(self._reader, self._start + first, min(_WINDOW, self._length - first))
            self._window = first, held
        got = min(left, first + len(held) - self._position)
        view[:got] = held[self._position - first : self._position - first + got]
        self._position += got
        return got

    def _where(self) -> int:
        """Begin the window here; near the end of the file it reaches back, since directories lie there."""
        if self._position + _WINDOW > self._length:
            return max(0, min(self._position, self._length - _WINDOW))
        return self._position
