"""The folder that a merge writes: begun, resumed after a crash, finished, given up.

While it is written, weights are in files called `*.partial` and `STATE` says of which merge; at the end the
files get their names, the index last, and `RECORD` says what was merged.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, FormatError, TaskError
from engine.formats.safetensors_writer import INDEX_NAME, Layout
from engine.storage.local import usable_path
from engine.storage.uris import scheme_of
from engine.verbs.merge_record import RECORD, Record, read_record, size_of

STATE = ".gaussmeter_merge.json"
_PARTIAL = ".partial"
_MOST_STATE = 1 << 16
_MEANWHILE = "was written by another process meanwhile"
_OTHER = (
    "holds an interrupted merge of something else, or its inputs have changed; choose another place, or "
    "--force to begin anew"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be written.

    Attributes:
        identity: digest of everything that the weights depend on: who has the same goes on with them.
        mark: digest of that, and of what lies beside the weights.
        layout: of the files of weights.
        most: how many bytes they can take on the disk.
    """

    identity: str
    mark: str
    layout: Layout
    most: int


class Output:
    """A folder that is being written.

    Args:
        out: its path.

    Raises:
        ConfigError: it can be no such folder.
    """

    def __init__(self, out: str) -> None:
        if scheme_of(out) != "file":
            raise ConfigError("a merge is written to a directory of this machine, not there", file=out)
        self.path = usable_path(out)
        if not _is_unicode(str(self.path)):
            raise ConfigError("its name is not UTF-8, in which the warehouse keeps it", file=str(self.path))
        if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
            raise ConfigError("is there already, and is no directory", file=str(self.path))
        if not self.path.parent.is_dir():
            raise ConfigError("there is no such directory to write into", file=str(self.path.parent))

    def record(self) -> Record | None:
        """What was merged here before; None if nothing was.

        Raises:
            FormatError: the record is damaged.
        """
        return read_record(self.path)

    def check(self, mark: str, *, force: bool) -> bool:
        """Look at what is there.

        Args:
            mark: of the merge that is to be written: digest of everything that its files depend on.
            force: whether an earlier merge may be replaced.

        Returns:
            whether this very merge is there, complete.

        Raises:
            ConfigError: something else is there.
            FormatError: its record is damaged.
        """
        found = self.record()
        if found is not None:
            if found.mark == mark and not force:
                return found.is_whole(self.path)
            if not force:
                message = "holds another merge; choose another place, or --force to replace it"
                raise ConfigError(message, file=str(self.path))
            return False
        if self.path.is_dir() and not (self.path / STATE).exists() and any(self.path.iterdir()):
            raise ConfigError("is there already, and is not empty", file=str(self.path))
        return False

    def tidy(self) -> None:
        """Remove what is left beside a complete merge by a run that was killed at its very end."""
        if not (self.path / STATE).exists():
            return
        with suppress(OSError):  # it is still running, or nothing may be written here
            descriptor = os.open(self.path / STATE, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.abandon()
            finally:
                os.close(descriptor)

    @contextmanager
    def writing(self, wanted: Wanted, *, force: bool = False) -> Iterator[str]:
        """Hold the folder, with files of full length.

        Args:
            wanted: what is to be written.
            force: whether an earlier merge, finished or not, may be replaced.

        Yields:
            a word that is another one whenever the files were begun anew.

        Raises:
            ConfigError: another process writes here, something else is there, or there is no room for it.
            FormatError: the record of what is there is damaged.
            TaskError: the files cannot be made.
        """
        with self._spoken():
            self.path.mkdir(exist_ok=True)
            descriptor = os.open(self.path / STATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(descriptor)
            try:
                nonce = self._take(descriptor, wanted, force)
            except (ConfigError, FormatError, TaskError):
                if not _state(descriptor):  # of what is there, nothing can be gone on with
                    self.abandon()
                raise
            yield nonce
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        """Be the only one who writes here, which the kernel ends however this process does."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("is being written by another process", file=str(self.path)) from error
        except OSError as error:  # a file system without locks
            raise ConfigError(f"cannot be locked: {error.strerror}", file=str(self.path)) from error
        try:
            same = os.path.samestat(os.fstat(descriptor), (self.path / STATE).stat())
        except OSError:
            same = False
        if not same:
            raise ConfigError(_MEANWHILE, file=str(self.path))

    def _take(self, descriptor: int, wanted: Wanted, force: bool) -> str:
        """Decide, while nobody else can write, whether to take up what is there or to begin anew.

        Returns:
            the word of the files.
        """
        if self.check(wanted.mark, force=force):
            raise ConfigError(_MEANWHILE, file=str(self.path))
        record, state = self.record(), _state(descriptor)
        same = state.get("identity") == wanted.identity
        if state and not same and not force:
            raise ConfigError(_OTHER, file=str(self.path))
        begun = same and self._is_begun(wanted.layout, finals=record is None)
        old = record if force else None
        if not begun:
            self._require_room(wanted.most, self._freed(old))
        with self._spoken():
            if not begun:
                os.ftruncate(descriptor, 0)  # from here on it is true of no file
                state = {"identity": wanted.identity, "nonce": secrets.token_hex(8)}
            self._remove(old)
            if begun:
                self._unname(wanted.layout)
            else:
                self._make(wanted.layout)
                os.pwrite(descriptor, json.dumps(state).encode(), 0)
        return state["nonce"]

    def _is_begun(self, layout: Layout, *, finals: bool) -> bool:
        """Whether all files are there in full length; `finals`: those that have their names already count."""
        for partial, shard in zip(self.partials(layout), layout.shards, strict=True):
            named = finals and not partial.exists()
            if size_of(self.path / shard.name if named else partial) != shard.nbytes:
                return False
        return True

    def _unname(self, layout: Layout) -> None:
        """Take back the names that were given by a run that did not come to its end."""
        for partial, shard in zip(self.partials(layout), layout.shards, strict=True):
            if not partial.exists():
                (self.path / shard.name).replace(partial)

    def _make(self, layout: Layout) -> None:
        """Make the files, in place of those that are not gone on with."""
        for path in self.path.glob(f"*{_PARTIAL}"):
            path.unlink()
        for path, shard in zip(self.partials(layout), layout.shards, strict=True):
            with path.open("wb") as file:
                file.write(shard.header)
                file.truncate(shard.nbytes)

    def _remove(self, record: Record | None) -> None:
        """Remove the files of an earlier merge; its record last, so that what is left of them is known."""
        if record is None:
            return
        here = self.path.resolve()
        for path in (self.path / name for name in record.files):
            if path.parent.resolve().is_relative_to(here):  # a folder of it may be a link
                path.unlink(missing_ok=True)
                if path.parent != self.path:
                    with suppress(OSError):  # one that holds something else stays
                        path.parent.rmdir()
        (self.path / RECORD).unlink(missing_ok=True)

    def _freed(self, record: Record | None) -> int:
        """How many bytes the disk gets back from an earlier merge, and from one that is not gone on with."""
        old = (self.path / name for name in (record.files if record else ()))
        with self._spoken():
            found = [path.stat() for path in (*old, *self.path.glob(f"*{_PARTIAL}")) if path.is_file()]
        return sum(512 * status.st_blocks for status in found if status.st_nlink == 1)

    def _require_room(self, nbytes: int, freed: int) -> None:
        free = shutil.disk_usage(self.path).free + freed
        if free < nbytes:
            raise ConfigError(
                f"{nbytes:,} bytes are to be written, the disk has {free:,} free", file=str(self.path)
            )

    def partials(self, layout: Layout) -> list[Path]:
        """The files of weights while they are written."""
        return [self.path / (shard.name + _PARTIAL) for shard in layout.shards]

    def finish(self, layout: Layout, files: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
        """Give the files their names.

        Args:
            layout: of the weights.
            files: what else there is to be, by name.
            record: what was merged.

        Raises:
            TaskError: something cannot be written.
        """
        with self._spoken():
            index = layout.index()
            for name, data in files.items():
                self._put(name, data)
            names = [shard.name for shard in layout.shards]
            for path, name in zip(self.partials(layout), names, strict=True):
                if path.exists():
                    _sync(path)
                    path.replace(self.path / name)
            if index is not None:
                self._put(INDEX_NAME, index)
            listed = sorted([*names, *files, *([INDEX_NAME] if index is not None else [])])
            sizes = {name: (self.path / name).stat().st_size for name in listed}
            text = json.dumps({**record, "files": sizes}, indent=1, ensure_ascii=False) + "\n"
            self._put(RECORD, text.encode())
            for left in (*self.path.glob(f"*{_PARTIAL}"), self.path / STATE):
                left.unlink()
            _sync(self.path)

    def _put(self, name: str, data: bytes) -> None:
        """Write a file that is there whole or not at all."""
        beside = self.path / (name + _PARTIAL)
        beside.parent.mkdir(exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path / name)

    def abandon(self) -> None:
        """Remove what was begun."""
        with suppress(OSError):  # the failure that led here is what is told
            for path in (*self.path.glob(f"*{_PARTIAL}"), self.path / STATE):
                path.unlink(missing_ok=True)
            self.path.rmdir()  # if nothing is left

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Say in one sentence what went wrong."""
        try:
            yield
        except OSError as error:
            raise TaskError(f"could not be written: {error.strerror}", file=str(self.path)) from error


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _state(descriptor: int) -> dict[str, str]:
    """What is being written; nothing if that is not said."""
    data = os.pread(descriptor, _MOST_STATE, 0)
    try:
        found = json.loads(data) if data else {}
    except ValueError:  # killed while it was written
        return {}
    if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in ("identity", "nonce")):
        return {}
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
