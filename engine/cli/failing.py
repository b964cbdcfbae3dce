"""How a command ends that cannot go on: with one sentence and an exit code, whatever went wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from engine.cli.output import complain, say
from engine.errors import GaussmeterError, Interruption, TaskError

_UNFORESEEN = 3


class Commands(TyperGroup):
    """All commands; what typer would end with an exit code that means something else here gets out of it."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            Interruption: the user stopped it; typer would end without a word.
            RuntimeError: a file or a pipe of its own ended too early; typer's 1 would be "the answer is no".
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interruption("interrupted") from stop
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"unforeseen: {error or type(error).__name__}") from error


@contextmanager
def ended_by(sentence: str) -> Iterator[None]:
    """Say what an interruption leaves.

    Args:
        sentence: what is said when the user stops the block.

    Raises:
        Interruption: the user stopped it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interruption(sentence) from stop


def reader_has_gone(end: SystemExit) -> bool:
    """Whether rich or typer ended because nobody reads the help, which is no error."""
    return isinstance(end.__context__, BrokenPipeError)


def say_why(error: BaseException, *, debug: bool) -> int:
    """Say on standard error what went wrong: a sentence, or a traceback of what nobody foresaw.

    Args:
        error: what went wrong.
        debug: whether the traceback is wanted in any case.

    Returns:
        the exit code.
    """
    if isinstance(error, KeyboardInterrupt):
        error = Interruption("interrupted")
    if isinstance(error, OSError):
        error = _of_output() or error
    if isinstance(error, GaussmeterError) and not debug:
        complain(str(error))
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    return error.exit_code if isinstance(error, GaussmeterError) else _UNFORESEEN


def _of_output() -> TaskError | None:
    """Why standard output cannot be written, to which rich writes the help itself; None if it can."""
    try:
        say("")
    except TaskError as error:
        return error
    return None
