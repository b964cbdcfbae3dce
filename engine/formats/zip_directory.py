"""The directory of a zip archive whose members are stored as they are, as torch and Zarr write it.

The standard library reads the directory. What it does not ask is asked here: that members are neither
compressed nor encrypted, that they lie within the file and apart from each other (a zip bomb shares bytes
between members), that names are relative and occur once.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from engine.errors import FormatError
from engine.storage import Reader, read_bytes
from engine.storage.opening import AT_ONCE
from engine.storage.stream import ReaderStream

_LOCAL_HEADER = 30
_LOCAL_MAGIC = b"PK\x03\x04"
_DAMAGE = (
    zipfile.BadZipFile,
    ValueError,
    OverflowError,
    struct.error,
    NotImplementedError,
    EOFError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive.

    Attributes:
        name: its path in the archive.
        offset: where its bytes begin in the file.
        nbytes: how many there are.
    """

    name: str
    offset: int
    nbytes: int


def read_directory(
    reader: Reader, uri: str, start: int, length: int, foreign: Mapping[str, str] | None = None
) -> dict[str, Member]:
    """Find the members of an archive.

    Args:
        reader: the open file.
        uri: the file, for messages.
        start: where the archive begins in it.
        length: how long the archive is.
        foreign: names of members that another kind of archive has, and what to say of it.

    Returns:
        the members by name, in the order of their offsets.

    Raises:
        FormatError: it is no zip archive, or not one of stored members side by side.
    """
    try:
        with zipfile.ZipFile(ReaderStream(reader, start, length)) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir()]
    except _DAMAGE as error:
        raise FormatError(f"is no whole zip archive: {error}", file=uri) from error
    infos.sort(key=lambda i: i.header_offset)
    for info in infos:
        if message := (foreign or {}).get(PurePosixPath(info.filename).name):
            raise FormatError(message, file=uri)
    for info in infos:
        _check(info, uri)
    offsets = _data_offsets(reader, uri, infos, start, length)
    members: dict[str, Member] = {}
    end = 0
    for info, offset in zip(infos, offsets, strict=True):
        if info.filename in members:
            raise FormatError(f"has two members {info.filename!r}", file=uri)
        if info.header_offset < end or offset + info.file_size > length:
            where = f"bytes {offset:,} to {offset + info.file_size:,}"
            relation = (
                "overlaps another" if info.header_offset < end else f"lies outside the {length:,} bytes"
            )
            raise FormatError(f"the member {info.filename!r} ({where}) {relation}", file=uri)
        end = offset + info.file_size
        members[info.filename] = Member(info.filename, start + offset, info.file_size)
    return members


def _check(info: zipfile.ZipInfo, uri: str) -> None:
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or "\0" in info.orig_filename:
        raise FormatError(f"has a member outside of itself: {info.filename!r}", file=uri)
    if info.flag_bits & 0x1:
        raise FormatError(f"the member {info.filename!r} is encrypted", file=uri)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        sizes = f"{info.compress_size:,} bytes for {info.file_size:,}"
        raise FormatError(
            f"the member {info.filename!r} is compressed ({sizes}), expected plain bytes", file=uri
        )


def _data_offsets(
    reader: Reader, uri: str, infos: Sequence[zipfile.ZipInfo], start: int, length: int
) -> list[int]:
    """Where each member's bytes begin: behind a header of its own, which only it tells the length of."""

    def one(info: zipfile.ZipInfo) -> int:
        if not 0 <= info.header_offset <= length - _LOCAL_HEADER:
            raise FormatError(f"the member {info.filename!r} lies outside the {length:,} bytes", file=uri)
        header = read_bytes(reader, start + info.header_offset, _LOCAL_HEADER)
        if header[:4] != _LOCAL_MAGIC:
            raise FormatError(
                f"has no member at byte {info.header_offset:,}, where {info.filename!r} should be", file=uri
            )
        name, extra = struct.unpack_from("<HH", header, 26)
        return int(info.header_offset + _LOCAL_HEADER + name + extra)

    if len(infos) < AT_ONCE:
        return [one(i) for i in infos]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="zip") as pool:
        return list(pool.map(one, infos))
