"""The kinds of failure, each one sentence that names the file, the tensor and the numbers."""

from __future__ import annotations

import re

_WEB = r"\b(?!(?:hf|s3a?|gs|az|abfss?|azure|file)://)[a-z][a-z0-9+.-]*://"
_QUERY = re.compile(rf"({_WEB}[^\s?]*)\?\S*", re.IGNORECASE)
_LOGIN = re.compile(rf"({_WEB})[^\s/]*@", re.IGNORECASE)


def shown(text: str) -> str:
    """Leave out of every web address in a text what may be secret: its query, and a login."""
    return _LOGIN.sub(r"\1", _QUERY.sub(r"\1", text))


def first_line(error: BaseException) -> str:
    """The first line of a message that has many, or the kind of an error that has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class GaussmeterError(Exception):
    """Base of every error that the engine raises on purpose.

    Args:
        message: what is wrong, with the numbers, without file or tensor.
        file: the file, directory or address concerned.
        tensor: the tensor concerned.
    """

    exit_code = 3

    def __init__(self, message: str, *, file: str | None = None, tensor: str | None = None) -> None:
        self.message, self.file, self.tensor = message, file, tensor
        super().__init__(message)

    def __str__(self) -> str:
        """Join file, tensor and message into one sentence."""
        where = [shown(self.file)] if self.file else []
        if self.tensor is not None:
            where.append(f"tensor {self.tensor!r}")
        return ": ".join([*where, self.message])

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling, so that an error can cross a process with its fields."""
        return _rebuild, (type(self), self.message, self.file, self.tensor)


def _rebuild(
    kind: type[GaussmeterError], message: str, file: str | None, tensor: str | None
) -> GaussmeterError:
    return kind(message, file=file, tensor=tensor)


class ConfigError(GaussmeterError):
    """The request itself is wrong: an option, a query, a name, a missing path."""

    exit_code = 2


class MissingError(ConfigError):
    """There is nothing at an address."""


class FormatError(GaussmeterError):
    """A file is damaged, foreign, or changed while it was read."""

    exit_code = 2


class BudgetError(GaussmeterError):
    """The plan would need more memory than it may use; nothing was run."""

    exit_code = 2


class TaskError(GaussmeterError):
    """A task failed while running."""


class DeviceError(TaskError):
    """A GPU failed; what its process has left of it is of no more use."""


class WarehouseError(GaussmeterError):
    """The warehouse cannot be used: not ours, newer than this program, read-only."""

    exit_code = 2


class WarehouseBusyError(WarehouseError):
    """Another process held the warehouse for longer than we were willing to wait."""

    exit_code = 3


class WarehouseWriteError(WarehouseError):
    """A transaction failed: a full disk, for example. Nothing of it was kept."""

    exit_code = 3


class AlreadyRunning(GaussmeterError):  # noqa: N818 - nobody made a mistake
    """Somebody is doing the same at this moment; there is nothing to do."""

    exit_code = 0


class Interruption(GaussmeterError):  # noqa: N818 - nobody made a mistake
    """The user stopped it; what was done is kept."""

    exit_code = 130
