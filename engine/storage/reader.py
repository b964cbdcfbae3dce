"""What every store offers of a file."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from engine.errors import FormatError
from engine.nouns.records import SourceFile


class Reader(Protocol):
    """A file open for positional reads. A context manager; several threads may read at once."""

    def describe(self) -> SourceFile:
        """Look up size and version."""
        ...

    def require(self, planned: SourceFile) -> None:
        """Insist that the file is the one that was planned, now and in every read that follows.

        Raises:
            FormatError: it is not; the reads of a distant file may raise it later.
        """
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer with the bytes from `offset` on.

        Raises:
            FormatError: the file ends before the buffer is full, or is not the one that was planned.
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


def read_bytes(reader: Reader, offset: int, nbytes: int) -> bytes:
    """Read a few bytes; errors as for `read_into`."""
    buffer = bytearray(nbytes)
    reader.read_into(memoryview(buffer), offset)
    return bytes(buffer)


def check_unchanged(now: SourceFile, planned: SourceFile) -> None:
    """Compare a file with what it was when the plan was made.

    Raises:
        FormatError: size or version differ.
    """
    if (now.size, now.version) != (planned.size, planned.version):
        raise changed(planned, f"{now.size:,} (version {now.version})")


def changed(planned: SourceFile, now: str) -> FormatError:
    """Say that a file is not what it was."""
    return FormatError(
        f"changed after the scan began: {planned.size:,} bytes (version {planned.version}), now {now}",
        file=planned.uri,
    )
