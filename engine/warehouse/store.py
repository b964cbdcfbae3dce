"""Opening the warehouse: short transactions, waiting for each other, migrations, hardened readers.

DuckDB lets one process write a file, and nobody read it meanwhile. So every writer opens it only for one
short transaction, and everybody who finds it taken tries again for a while.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import duckdb

from engine.errors import ConfigError, WarehouseBusyError, WarehouseError, WarehouseWriteError
from engine.nouns.events import Listener, Waiting, ignore
from engine.warehouse.create import create
from engine.warehouse.migrate import is_current, migrate
from engine.warehouse.rows import LOCKED_DOWN, Connection, one_line

WAIT_SECONDS = 120.0
_READER = {**LOCKED_DOWN, "enable_external_access": "false", "lock_configuration": "true"}
_WRITER = {**LOCKED_DOWN, "memory_limit": "512MB"}
_TAKEN = ("Could not set lock", "different configuration", "Unique file handle conflict")
_HOLDER = re.compile(r"held in (.*?)\s*\(PID (\d+)\)")

_locks: dict[str, RLock] = {}


def _lock_of(path: Path) -> RLock:
    """The lock of a file within this process, in which DuckDB would let a second writer in."""
    return _locks.setdefault(os.path.realpath(path), RLock())


class Warehouse:
    """One DuckDB file.

    Args:
        path: where it is; created when first written.
        wait_seconds: how long to wait for other processes.
        listener: told while waiting.
    """

    def __init__(
        self, path: str | Path, *, wait_seconds: float = WAIT_SECONDS, listener: Listener = ignore
    ) -> None:
        self.path = Path(path)
        self._wait, self._listener = wait_seconds, listener
        self._current = False
        self._lock = _lock_of(self.path)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open for one transaction: committed at the end of the block, undone by an exception.

        Raises:
            WarehouseBusyError: others held it all the while.
            WarehouseError: it is not ours, too new, or not writable.
            WarehouseWriteError: the transaction failed, for want of disk, say.
        """
        with self._lock:
            create(self.path)
            connection = self._open(lambda: duckdb.connect(str(self.path), config=dict(_WRITER)))
            try:
                if not self._current:
                    migrate(connection, str(self.path))
                    self._current = True
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except duckdb.Error as error:
                raise WarehouseWriteError(
                    f"could not be written: {one_line(error)}", file=str(self.path)
                ) from error
            finally:
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open read-only, without access to other files, extensions or settings.

        Raises:
            ConfigError: there is no such warehouse.
            WarehouseBusyError, WarehouseError: as for `writing`.
        """
        with self._lock:
            connection = self._open_reader()
            try:
                if not self._is_current(connection):
                    connection.close()
                    with self.writing():
                        pass  # brings it up to date
                    connection = self._open_reader()
                yield connection
            finally:
                connection.close()

    def _is_current(self, connection: Connection) -> bool:
        if not self._current:
            self._current = is_current(connection, str(self.path))
        return self._current

    def _open_reader(self) -> Connection:
        try:
            there = self.path.is_file()
        except OSError as error:
            raise WarehouseError(f"cannot be opened: {error.strerror}", file=str(self.path)[:200]) from error
        if not there:
            raise ConfigError("there is no such warehouse; `gaussmeter scan` makes one", file=str(self.path))
        return self._open(lambda: duckdb.connect(str(self.path), read_only=True, config=dict(_READER)))

    def _open(self, connect: Callable[[], Connection]) -> Connection:
        began = time.monotonic()
        pause = 0.005
        while True:
            try:
                return connect()
            except duckdb.Error as error:
                if not any(sign in str(error) for sign in _TAKEN):
                    raise WarehouseError(
                        f"cannot be opened: {one_line(error)}", file=str(self.path)
                    ) from error
                self._be_patient(_holder(str(error)), time.monotonic() - began, error)
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.3, 0.1)

    def _be_patient(self, holder: str, waited: float, error: duckdb.Error) -> None:
        if waited > self._wait:
            raise WarehouseBusyError(
                f"was held by {holder} for {waited:.0f} s", file=str(self.path)
            ) from error
        self._listener(Waiting(holder, waited))


def _holder(text: str) -> str:
    match = _HOLDER.search(text)
    return f"process {match[2]} ({match[1]})" if match else "another process"
