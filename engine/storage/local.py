"""Local files, by positional reads: no memory map, so nothing but the buffer counts as ours."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import ConfigError, FormatError, TaskError
from engine.nouns.records import SourceFile
from engine.storage.reader import check_unchanged

_SEQUENTIAL = getattr(os, "POSIX_FADV_SEQUENTIAL", None)
_DONT_NEED = getattr(os, "POSIX_FADV_DONTNEED", None)
_GROUP = 16 << 20


def page_cache_bytes() -> int | None:
    """How much of a file system the kernel may be expected to keep in memory: half of it."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def full_path(uri: str) -> str:
    """The absolute path of a local URI, whether or not it leads anywhere."""
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))  # noqa: PTH100, PTH111 - any text


def usable_path(uri: str) -> Path:
    """The absolute path of a local URI, whether or not something is there.

    Raises:
        ConfigError: it cannot be a path: no such user, a NUL in it, too long a name, no access.
    """
    try:
        path = Path(uri.removeprefix("file://")).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"is not a usable path: {reason}", file=uri[:200]) from error
    return path


def local_path(uri: str) -> Path | None:
    """Where a local URI leads.

    Returns:
        the absolute path, None when there is nothing.

    Raises:
        ConfigError: it cannot be a path: no such user, a NUL in it.
    """
    try:
        path = Path(uri.removeprefix("file://")).expanduser().absolute()
        return path if path.exists() else None
    except OSError:  # too long a name, for example
        return None
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"is not a usable path: {error}", file=uri[:200]) from error


class LocalReader:
    """A file of a local or mounted file system.

    Args:
        path: where it is.

    Raises:
        FormatError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(
                path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )  # nor wait for a pipe
        except OSError as error:
            raise FormatError(f"cannot be read: {error.strerror}", file=path) from error
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise FormatError("is not a regular file", file=path)
        if _SEQUENTIAL is not None:
            os.posix_fadvise(self._descriptor, 0, 0, _SEQUENTIAL)

    def describe(self) -> SourceFile:
        """Look up size and modification time (ns)."""
        status = os.fstat(self._descriptor)
        return SourceFile(self.path, status.st_size, str(status.st_mtime_ns))

    def require(self, planned: SourceFile) -> None:
        """Compare size and modification time; see `Reader`."""
        check_unchanged(self.describe(), planned)

    def forget(self, offset: int, nbytes: int) -> None:
        """Let the kernel drop pages that were read, which is cheaper than having it look for some to drop.

        It is done for a group of blocks at once, when the last of them was read.
        """
        end = offset + nbytes
        if _DONT_NEED is not None and end // _GROUP != offset // _GROUP:
            start = max(0, end - 2 * _GROUP)
            os.posix_fadvise(self._descriptor, start, end - start, _DONT_NEED)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer; see `Reader`."""
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                at = f"at byte {offset + done:,}"
                raise TaskError(f"cannot be read {at}: {error.strerror}", file=self.path) from error
            if got == 0:
                size, end = os.fstat(self._descriptor).st_size, offset + len(buffer)
                raise FormatError(
                    f"is truncated: it ends at byte {size:,}, expected {end:,} or more", file=self.path
                )
            done += got

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._descriptor)
