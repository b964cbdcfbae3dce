"""What every store offers."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from engine.nouns.records import SourceFile


class Reader(Protocol):
    """A file open for positional reads. A context manager; one thread uses it at a time."""

    def describe(self) -> SourceFile:
        """Look up size and version now, not when the file was opened."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer with the bytes from `offset` on.

        Raises:
            FormatError: the file ends before the buffer is full.
            TaskError: the store failed.
        """
        ...

    def forget(self, offset: int, nbytes: int) -> None:
        """Say that a range that was read will not be needed again soon."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
