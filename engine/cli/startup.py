"""What a short-lived process can leave out, and what it can begin early."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

_AHEAD_BYTES = 2 << 30
_STEP_BYTES = 16 << 20


def collect_rarely() -> None:
    """Look for cycles of garbage less often: a command makes few, and every look costs its workers time."""
    gc.set_threshold(400_000, 50, 100)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process without taking the interpreter apart, which takes 0.2 s.

    Threads are joined, what others have registered for the end is done, and the streams are flushed before.
    For processes that are a command: the block is all that they do.
    """
    code = [1]  # of an exception, which Python prints
    atexit.register(_end, code)  # the first to be registered is the last to be called
    try:
        yield
        code[0] = 0
    except SystemExit as end:
        code[0] = (end.code or 0) if isinstance(end.code, int | None) else 1
        raise


def _end(code: list[int]) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # Python says so in its own way
        return
    os._exit(code[0])


@contextmanager
def reading_ahead(uris: Iterable[str]) -> Iterator[None]:
    """Let the disk work while Python still loads its libraries.

    The kernel is asked to read the first files of local checkpoints into its cache, until the block ends.
    It is advice: whatever goes wrong here goes wrong again, with a sentence, when the file is read.
    """
    stop = Event()
    if hasattr(os, "posix_fadvise"):
        Thread(target=_read_ahead, args=(list(uris), stop), name="read-ahead", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _read_ahead(uris: list[str], stop: Event) -> None:
    left = _AHEAD_BYTES
    for path in _files(uris):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):
            continue
        try:
            size = os.fstat(descriptor).st_size
            for start in range(0, size, _STEP_BYTES):
                if stop.is_set() or left <= 0:
                    return
                os.posix_fadvise(descriptor, start, _STEP_BYTES, os.POSIX_FADV_WILLNEED)
                left -= _STEP_BYTES
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _files(uris: list[str]) -> Iterator[Path]:
    for uri in uris:
        try:
            path = Path(uri)
            if not path.is_dir():
                yield path
            else:
                yield from sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
        except (OSError, ValueError):  # no usable path
            continue
