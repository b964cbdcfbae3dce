"""Where the objects of a Zarr store are: files of a folder, or members of a zip archive."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from engine.errors import FormatError, MissingError
from engine.formats.marks import ROOT
from engine.formats.zip_directory import read_directory
from engine.nouns.records import SourceFile
from engine.storage import Folder, open_reader, read_bytes
from engine.storage.opening import AT_ONCE, describe


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes of one object.

    Attributes:
        file: that they lie in.
        offset: of the first.
        nbytes: how many.
    """

    file: SourceFile
    offset: int
    nbytes: int


class Objects(Protocol):
    """The objects of a store by their keys."""

    uri: str
    distant: bool

    def keys(self) -> list[str] | None:
        """All keys; None where nothing can be listed."""
        ...

    def find(self, keys: Sequence[str]) -> dict[str, Blob]:
        """Those of the keys that are there."""
        ...


class FolderObjects:
    """A store that is a folder."""

    def __init__(self, folder: Folder) -> None:
        self.uri, self.distant, self._folder = folder.uri, folder.distant, folder
        self._tree = folder.tree()

    def keys(self) -> list[str] | None:
        """See `Objects`."""
        return None if self._tree is None else sorted(self._tree)

    def find(self, keys: Sequence[str]) -> dict[str, Blob]:
        """See `Objects`."""
        if self._tree is not None:
            return {k: Blob(f, 0, f.size) for k in keys if (f := self._tree.get(k)) is not None}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="zarr") as pool:
            found = pool.map(lambda k: _described(self._folder.address(k)), keys)
            return {k: Blob(f, 0, f.size) for k, f in zip(keys, found, strict=True) if f is not None}


def _described(uri: str) -> SourceFile | None:
    try:
        return describe(uri)
    except MissingError:  # a server that lists nothing is asked for every object
        return None


@dataclass
class ZipObjects:
    """A store that is a zip archive of stored members.

    Attributes:
        uri: of the archive.
    """

    uri: str
    distant = False
    _blobs: dict[str, Blob] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with open_reader(self.uri) as reader:
            file = reader.describe()
            members = read_directory(reader, self.uri, 0, file.size)
        roots = sorted((n for n in members if n.rpartition("/")[2] == ROOT), key=lambda n: (n.count("/"), n))
        if not roots:
            raise FormatError(f"is a zip archive without {ROOT}: no Zarr store", file=self.uri)
        root = roots[0].removesuffix(ROOT)
        self._blobs = {
            n.removeprefix(root): Blob(file, m.offset, m.nbytes)
            for n, m in members.items()
            if n.startswith(root)
        }

    def keys(self) -> list[str]:
        """See `Objects`."""
        return sorted(self._blobs)

    def find(self, keys: Sequence[str]) -> dict[str, Blob]:
        """See `Objects`."""
        return {k: self._blobs[k] for k in keys if k in self._blobs}


def read_all(stretches: Sequence[Blob]) -> list[bytes]:
    """Read small stretches, several at a time; errors as for `Reader.read_into`."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="zarr") as pool:
        return list(pool.map(_read, stretches))


def _read(blob: Blob) -> bytes:
    with open_reader(blob.file.uri) as reader:
        reader.require(blob.file)
        return read_bytes(reader, blob.offset, blob.nbytes)
