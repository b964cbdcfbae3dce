"""A directory or a bucket into which whole files are put, and from which they are taken again."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import ConfigError, TaskError
from engine.nouns.records import SourceFile
from engine.storage.folders import BucketFolder, LocalFolder
from engine.storage.local import usable_path
from engine.storage.remote import cause, final_error, one_line, store_errors
from engine.storage.stores import open_store, split_address
from engine.storage.uris import BUCKETS, scheme_of

_SCRATCH = ".export-"  # tools that read a whole folder pass over names with a dot
_ABANDONED = 3600.0


class Depot:
    """Files in a directory or a bucket, each of which is there whole or not at all.

    Args:
        uri: a path, or an address in a bucket.

    Raises:
        ConfigError: it can be no such place.
    """

    def __init__(self, uri: str) -> None:
        self._path: Path | None = None
        scheme = scheme_of(uri)
        if scheme == "file":
            self._path = usable_path(uri)
            self.uri = str(self._path)
        elif scheme in BUCKETS:
            self._root, self._prefix = split_address(uri)
            self.uri = f"{self._root}/{self._prefix}".rstrip("/")
        else:
            raise ConfigError("can be a directory or a bucket, not this", file=uri)

    def check_writable(self) -> None:
        """Refuse what can be no directory to write to.

        Raises:
            ConfigError: it is a file, or lies nowhere.
        """
        path = self._path
        if path is None:
            return
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise ConfigError("is there already, and is no directory", file=self.uri)
        if not path.parent.is_dir():
            raise ConfigError("there is no such directory to write into", file=str(path.parent))

    def check_readable(self) -> None:
        """Refuse a directory that is not there.

        Raises:
            ConfigError: likewise.
        """
        if self._path is not None and not self._path.is_dir():
            raise ConfigError("there is no such directory", file=self.uri)

    def files(self, folder: str) -> dict[str, SourceFile]:
        """All files below one of its folders, by their path in the depot.

        Raises:
            ConfigError, TaskError: it may not be listed, or the store does not answer.
        """
        if self._path is not None:
            found = LocalFolder(self._path / folder).tree()
        else:
            found = BucketFolder(f"{self.uri}/{folder}").tree()
        return {f"{folder}/{name}": source for name, source in found.items()}

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder for files that are being written; `put` takes them from there.

        Raises:
            TaskError: there can be none.
        """
        try:
            if self._path is not None:
                self._path.mkdir(exist_ok=True)
                _sweep(self._path)
            folder = tempfile.mkdtemp(prefix=_SCRATCH, dir=self._path)
        except OSError as error:
            raise TaskError(f"could not be written: {error.strerror}", file=self.uri) from error
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, source: Path, name: str) -> None:
        """Let a finished file appear, at once and in place of the one before.

        Args:
            source: it lies in the scratch folder, and is gone afterwards.
            name: its path in the depot.

        Raises:
            ConfigError, TaskError: it could not be written.
        """
        if self._path is None:
            self._upload(source, name)
            return
        target = self._path / name
        try:
            with source.open("rb") as file:
                os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        except OSError as error:
            raise TaskError(f"could not be written: {error.strerror}", file=str(target)) from error

    def _upload(self, source: Path, name: str) -> None:
        import obstore

        uri = f"{self.uri}/{name}"
        try:
            obstore.put(open_store(self._root, repeating=True), split_address(uri)[1], source)
        except store_errors() as error:
            final = final_error(error, uri, "may not be written with the credentials that were found")
            raise final or TaskError(f"could not be written: {one_line(error)}", file=uri) from cause(error)
        source.unlink()


def _sweep(folder: Path) -> None:
    """Remove what others left that were killed a while ago."""
    for left in folder.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError):  # another export has just ended
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
