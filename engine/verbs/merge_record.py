"""The record beside what was merged, edited or folded: read strictly, since anybody may have written it."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import FormatError
from engine.formats.strict_json import parse_object

RECORD = "gaussmeter_merge.json"
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says.

    Attributes:
        mark: digest of everything that the files depend on; "" if it does not say.
        files: the files, by their paths in the folder, with their sizes in bytes.
        kept: of an edit, for each tensor how many elements were kept and how many were not.
        config: by what it was merged; None if it was not by a configuration.
        data: all of it as it stands: `edit`, or `adapter` and `base`, say how it was made otherwise.
    """

    mark: str
    files: Mapping[str, int]
    kept: Mapping[str, tuple[int, int]]
    config: Mapping[str, Any] | None
    data: Mapping[str, Any]

    def is_whole(self, folder: Path) -> bool:
        """Whether all files are there, in full length."""
        return all(size_of(folder / name) == size for name, size in self.files.items())


def read_record(folder: Path) -> Record | None:
    """Read what was merged in a folder; None if nothing was.

    Raises:
        FormatError: the record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", file=str(path)) from error
    data = parse_object(raw, file=str(path), what="the record", infinite=True)  # `t: .inf` of outlier
    reader = _Reader(data, str(path))
    return Record(
        mark=str(data.get("identity", "")),
        files={name: reader.size(name, size) for name, size in reader.table("files").items()},
        kept={name: reader.counts(name, pair) for name, pair in reader.table("kept").items()},
        config=reader.table("config") if "config" in data else None,
        data=reader.checked(),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes a record apart."""

    data: dict[str, Any]
    file: str

    def table(self, key: str) -> dict[str, Any]:
        """What is an object, if it is there."""
        found = self.data.get(key, {})
        if not isinstance(found, dict):
            raise self._wrong(key)
        return found

    def size(self, name: str, size: Any) -> int:
        """The size of a file that lies in the folder, and nowhere else."""
        if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
            message = f"the record names a file {name[:60]!r}, which is none of the folder"
            raise FormatError(message, file=self.file)
        if type(size) is not int or size < 0:
            raise self._wrong("files")
        return size

    def counts(self, name: str, pair: Any) -> tuple[int, int]:
        """How many elements of a tensor were kept, and how many were not."""
        if not isinstance(pair, list) or len(pair) != 2 or any(type(n) is not int for n in pair):
            message = "the record does not say how many elements were kept"
            raise FormatError(message, file=self.file, tensor=name)
        return pair[0], pair[1]

    def checked(self) -> dict[str, Any]:
        """All of it, in which `adapter` and `base` are texts, and neither is there alone."""
        if "adapter" in self.data:
            for key in ("adapter", "base"):
                if not isinstance(self.data.get(key), str):
                    raise self._wrong(key)
        return self.data

    def _wrong(self, key: str) -> FormatError:
        return FormatError(f"the record does not say what its {key!r} should", file=self.file)


def size_of(path: Path) -> int:
    """How long a file is, -1 if there is none, nor can be."""
    try:
        status = path.stat()
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
