"""The one way out: text for standard output and standard error, whatever they are."""

from __future__ import annotations

import os
import sys

from engine.errors import TaskError
from engine.nouns.words import printable

__all__ = ["complain", "prepare_streams", "printable", "say"]


def say(text: str | bytes) -> None:
    """Write to standard output, now.

    Raises:
        SystemExit: the reader has gone, which is no error.
        TaskError: it cannot be written.
    """
    try:
        if isinstance(text, bytes):
            sys.stdout.buffer.write(text)
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _forget(sys.stdout.fileno())
        raise TaskError(f"standard output cannot be written: {error.strerror}") from error


def _forget(descriptor: int) -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def complain(text: str) -> None:
    """Write one sentence to standard error; where that cannot be written, the exit code alone tells."""
    try:
        sys.stderr.write(f"gaussmeter: {printable(' '.join(text.split()))}\n")
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr.fileno())


def prepare_streams() -> None:
    """Make standard output and error take every character, and exist."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - closed by the end of the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
