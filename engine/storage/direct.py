"""Local files read straight into a GPU's memory, where kvikio is installed (GPUDirect Storage)."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from engine.errors import FormatError, TaskError
from engine.storage.local import LocalReader


class DirectReader(LocalReader):
    """A file of a local file system, for a GPU too.

    Where there is no GPUDirect Storage, kvikio goes by way of the host.

    Args:
        path: where it is.

    Raises:
        FormatError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        import kvikio

        try:
            opened = f"/proc/self/fd/{self._descriptor}"  # and not another that has the name by now
            self._file: Any = kvikio.CuFile(opened, "r")
        except (OSError, RuntimeError) as error:
            super().__exit__(None, None, None)
            raise FormatError(f"cannot be read by kvikio: {error}", file=path) from error

    def read_onto(self, memory: Any, nbytes: int, offset: int) -> None:
        """Fill memory of a GPU with the bytes from `offset` on; see `Reader.read_into`.

        Args:
            memory: so many bytes, by `__cuda_array_interface__`.
            nbytes: how many.
            offset: of the first in the file.
        """
        try:
            got = self._file.pread(memory, nbytes, offset).get()
        except (OSError, RuntimeError) as error:
            message = f"cannot be read at byte {offset:,} by kvikio: {error}"
            raise TaskError(message, file=self.path) from error
        if got != nbytes:
            size, end = self.describe().size, offset + nbytes
            raise FormatError(
                f"is truncated: it ends at byte {size:,}, expected {end:,} or more", file=self.path
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()
        super().__exit__(kind, error, trace)
