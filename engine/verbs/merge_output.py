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
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, FormatError, TaskError
from engine.formats.safetensors_writer import INDEX_NAME, Layout
from engine.formats.strict_json import parse_object
from engine.storage.uris import scheme_of

RECORD = "gaussmeter_merge.json"
STATE = ".gaussmeter_merge.json"
_PARTIAL = ".partial"
_MOST_BYTES = 1 << 28


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
        self.path = Path(out.removeprefix("file://")).expanduser().absolute()
        if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
            raise ConfigError("is there already, and is no directory", file=str(self.path))
        if not self.path.parent.is_dir():
            raise ConfigError("there is no such directory to write into", file=str(self.path.parent))

    def record(self) -> dict[str, Any] | None:
        """What was merged here before; None if nothing was.

        Raises:
            FormatError: the record is damaged.
        """
        return read_record(self.path)

    def check(self, identity: str, *, force: bool) -> bool:
        """Look at what is there.

        Args:
            identity: of the merge that is to be written.
            force: whether an earlier merge may be replaced.

        Returns:
            whether this very merge is there, complete.

        Raises:
            ConfigError: something else is there.
        """
        found = self.record()
        if found is not None:
            if found.get("identity") == identity and not force:
                return self._is_whole(found)
            if not force:
                message = "holds another merge; choose another place, or --force to replace it"
                raise ConfigError(message, file=str(self.path))
            return False
        if self.path.is_dir() and not (self.path / STATE).exists() and any(self.path.iterdir()):
            raise ConfigError("is there already, and is not empty", file=str(self.path))
        return False

    def _is_whole(self, record: Mapping[str, Any]) -> bool:
        sizes = record.get("files", {})
        return all(
            (self.path / name).is_file() and (self.path / name).stat().st_size == size
            for name, size in sizes.items()
        )

    @contextmanager
    def writing(self, identity: str, layout: Layout, most: int | None = None) -> Iterator[str]:
        """Hold the folder, with files of full length.

        Args:
            identity: of the merge.
            layout: of its files.
            most: how many bytes they can take on the disk; None if that is their length.

        Yields:
            a word that is another one whenever the files were begun anew.

        Raises:
            ConfigError: another process writes here, or the disk has not room enough.
            TaskError: the files cannot be made.
        """
        with self._spoken():
            made = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            descriptor = os.open(self.path / STATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError("is being written by another process", file=str(self.path)) from error
            try:
                nonce = self._begun(descriptor, identity, layout, most)
            except (ConfigError, TaskError):
                self.abandon(layout, made=made)
                raise
            yield nonce
        finally:
            os.close(descriptor)

    def _begun(self, descriptor: int, identity: str, layout: Layout, most: int | None) -> str:
        """Take up what is there, or begin anew."""
        found = _state(os.pread(descriptor, 1 << 16, 0))
        nonce = str(found.get("nonce", "")) if found.get("identity") == identity else ""
        paths = self.partials(layout)
        sizes = [shard.nbytes for shard in layout.shards]
        finals = [self.path / shard.name for shard in layout.shards]
        whole = all(
            _size(partial) == size or _size(final) == size
            for partial, final, size in zip(paths, finals, sizes, strict=True)
        )
        if nonce and whole:
            return nonce
        for path in self.path.glob(f"*{_PARTIAL}"):
            path.unlink()
        self._require_room(layout.nbytes if most is None else min(layout.nbytes, most))
        nonce = secrets.token_hex(8)
        with self._spoken():
            for path, shard in zip(paths, layout.shards, strict=True):
                with path.open("wb") as file:
                    file.write(shard.header)
                    file.truncate(shard.nbytes)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"identity": identity, "nonce": nonce}).encode(), 0)
        return nonce

    def _require_room(self, nbytes: int) -> None:
        free = shutil.disk_usage(self.path).free
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

    def abandon(self, layout: Layout, *, made: bool = False) -> None:
        """Remove what was begun."""
        for path in (*self.partials(layout), *self.path.glob(f"*{_PARTIAL}"), self.path / STATE):
            path.unlink(missing_ok=True)
        if made or not any(self.path.iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)

    def replace_old(self) -> None:
        """Remove the files of an earlier merge."""
        found = self.record()
        for name in (found or {}).get("files", {}):
            if not {"", ".", ".."} & set(name.split("/")):
                (self.path / name).unlink(missing_ok=True)
                with suppress(OSError):  # one that holds something else stays
                    (self.path / name).parent.rmdir()
        (self.path / RECORD).unlink(missing_ok=True)

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Say in one sentence what went wrong."""
        try:
            yield
        except OSError as error:
            raise TaskError(f"could not be written: {error.strerror}", file=str(self.path)) from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read what was merged in a folder; None if nothing was.

    Raises:
        FormatError: the record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        data = path.read_bytes()[:_MOST_BYTES]
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", file=str(path)) from error
    return parse_object(data, file=str(path), what="the record")


def _state(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data) if data else {}
    except ValueError:  # killed while it was written
        return {}
    return found if isinstance(found, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
