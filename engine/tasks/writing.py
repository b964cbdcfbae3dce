"""Writing ranges of files that are there already, in full length."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import TaskError
from engine.nouns.tasks import Into

_EXTENT = 4 << 20  # bytes that the disk is given at once


class Files:
    """Files that a task writes to, one open at a time."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._descriptor = -1
        self._begun = self._done = 0  # what was written last, one block behind the other

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, into: Into, start: int, data: NDArray[np.uint8]) -> None:
        """Write bytes of a tensor.

        Args:
            into: where the tensor is written.
            start: which of its bytes is the first of these.
            data: (n,) uint8.

        Raises:
            TaskError: they cannot be written.
        """
        path, offset = into.path, into.offset + start
        try:
            if path != self._path:
                self._close()
                self._descriptor, self._path = os.open(path, os.O_WRONLY | os.O_CLOEXEC), path
            if _is_nothing(data):
                return
            rest = memoryview(data.data)
            if offset != self._done or offset - self._begun >= _EXTENT:
                self._let_go()
                self._begun = offset
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                offset += written
                rest = rest[written:]
            self._done = offset
        except OSError as error:
            message = f"could not be written: {error.strerror}"
            raise TaskError(message, file=path, tensor=into.name) from error

    def _let_go(self) -> None:
        """Have the disk begin to write now: less is left to wait for at the end."""
        if self._done > self._begun and hasattr(os, "posix_fadvise"):
            size = self._done - self._begun
            os.posix_fadvise(self._descriptor, self._begun, size, os.POSIX_FADV_DONTNEED)
        self._begun = self._done

    def _close(self) -> None:
        """Close what is open; network file systems say only then that a disk is full.

        Raises:
            TaskError: what was written did not arrive.
        """
        if self._path is None:
            return
        path, self._path = self._path, None
        try:
            try:
                self._let_go()
            finally:
                os.close(self._descriptor)
        except OSError as error:
            raise TaskError(f"could not be written: {error.strerror}", file=path) from error


def _is_nothing(data: NDArray[np.uint8]) -> bool:
    """Whether there are only zeros, of which the file is full already: holes stay holes."""
    return not data.size or (not data[0] and not data[-1] and not data.any())
