"""Writing ranges of files that are there already, in full length."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import TaskError


class Files:
    """Files that a task writes to, one open at a time."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, path: str, offset: int, data: NDArray[np.uint8], tensor: str) -> None:
        """Write bytes at a place.

        Raises:
            TaskError: they cannot be written.
        """
        try:
            if path != self._path:
                self._close()
                self._descriptor, self._path = os.open(path, os.O_WRONLY | os.O_CLOEXEC), path
            rest = memoryview(data.data)
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                offset += written
                rest = rest[written:]
        except OSError as error:
            message = f"could not be written: {error.strerror}"
            raise TaskError(message, file=path, tensor=tensor) from error

    def _close(self) -> None:
        if self._path is not None:
            os.close(self._descriptor)
            self._path = None
