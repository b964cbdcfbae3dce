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


@contextmanager
def only_one(warehouse: str | Path, name: str) -> Iterator[None]:
    """Hold the lock of a name beside a warehouse; the kernel gives it back however this process ends.

    Raises:
        AlreadyRunning: another process holds it.
        WarehouseError: there can be no such file.
    """
    path = Path(f"{warehouse}.{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.lock")
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise WarehouseError(f"cannot be written: {error.strerror}", file=str(path)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            file.seek(0)
            raise AlreadyRunning(f"{name} is running already{_holder(file.read())}") from taken
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()}))
        file.flush()
        yield
        file.truncate(0)


def _holder(text: str) -> str:
    try:
        held = json.loads(text)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held["since"]))
        return f" (process {held['pid']} on {held['host']}, since {since})"
    except (ValueError, KeyError, TypeError):
        return ""
