"""One census of a name at a time: whoever comes second is told who was first."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import AlreadyRunning, WarehouseError

_HOW = (
    os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
)  # no link, and no waiting for a pipe
_MOST_BYTES = 1000


@contextmanager
def only_one(warehouse: str | Path, name: str) -> Iterator[None]:
    """Hold the lock of a name beside a warehouse; the kernel gives it back however this process ends.

    Raises:
        AlreadyRunning: another process holds it.
        WarehouseError: there can be no such file.
    """
    path = f"{warehouse}.{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.lock"
    try:
        descriptor = os.open(path, _HOW, 0o666)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WarehouseError(f"cannot be written: {reason}", file=path) from error
    try:
        _take(descriptor, path, name)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: str, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as taken:
        raise AlreadyRunning(f"{name} is running already{_holder(descriptor)}") from taken
    except OSError as error:  # a file system without locks
        raise WarehouseError(f"cannot be locked: {error.strerror}", file=path) from error
    held = {"pid": os.getpid(), "host": platform.node(), "since": time.time()}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(held).encode(), 0)
    except OSError as error:
        raise WarehouseError(f"cannot be written: {error.strerror}", file=path) from error


def _holder(descriptor: int) -> str:
    """Who holds a lock, if its file says so: it may be empty for a moment, or anybody's."""
    try:
        held = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(held["since"])))
        return f" (process {held['pid']} on {held['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return ""
