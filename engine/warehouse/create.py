"""Making a warehouse so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path

import duckdb

from engine.errors import WarehouseError, WarehouseWriteError
from engine.warehouse.migrate import migrate
from engine.warehouse.rows import LOCKED_DOWN, one_line
from engine.warehouse.template import copy_template, keep_template

_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links say."""


def create(path: Path) -> None:
    """Make a warehouse where there is none, or an empty file; leave everything else alone.

    It is made beside its place and then put there, so that a crash leaves nothing and of two processes that
    try, one wins and both go on.

    Raises:
        WarehouseError: the place cannot be written.
        WarehouseWriteError: the disk is full.
    """
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size):
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:100]}-", dir=path.parent) as folder:
            new = Path(folder) / "new.duckdb"
            if not copy_template(new):
                _fill(new, path)
                keep_template(new)
            _put(new, path)
    except OSError as error:
        raise WarehouseError(f"cannot be made: {error.strerror}", file=str(path)[:300]) from error


def _fill(new: Path, path: Path) -> None:
    try:
        connection = duckdb.connect(str(new), config=dict(LOCKED_DOWN))
        try:
            migrate(connection, str(path))
        finally:
            connection.close()
    except duckdb.Error as error:
        raise WarehouseWriteError(f"could not be made: {one_line(error)}", file=str(path)) from error


def _put(new: Path, path: Path) -> None:
    """Link the new file into place, unless somebody was quicker."""
    try:
        os.link(new, path)
    except FileExistsError:
        _replace_if_empty(new, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        new.rename(path)


def _replace_if_empty(new: Path, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of several that try, one at a time
        if path.stat().st_ino == os.fstat(descriptor).st_ino and not path.stat().st_size:
            new.rename(path)
    finally:
        os.close(descriptor)
