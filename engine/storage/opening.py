"""From an address to a reader, whatever the store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from engine.errors import FormatError
from engine.nouns.records import SourceFile
from engine.storage.hub import open_hub_file
from engine.storage.local import LocalReader
from engine.storage.reader import Reader, read_bytes
from engine.storage.remote import RemoteReader
from engine.storage.stores import open_store, split_address
from engine.storage.uris import HUB, scheme_of

AT_ONCE = 16
"""Small requests that are made side by side."""


def open_reader(uri: str) -> Reader:
    """Open a file for positional reads.

    Args:
        uri: a path, or an address with a scheme, as `SourceFile.uri` has it.

    Raises:
        ConfigError: it may not be read, or there is no such store.
        FormatError: it is not there or cannot be read.
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        return LocalReader(uri)
    if scheme == HUB:
        return open_hub_file(uri)
    root, path = split_address(uri)
    return RemoteReader(uri, open_store(root), path)


def read_whole(uri: str, most: int) -> bytes:
    """Read a small file.

    Raises:
        FormatError: it is larger than `most` bytes, or as for `open_reader`.
    """
    with open_reader(uri) as reader:
        size = reader.describe().size
        if size > most:
            raise FormatError(f"has {size:,} bytes, over the limit of {most:,} for such a file", file=uri)
        return read_bytes(reader, 0, size)


def describe_all(uris: Sequence[str]) -> list[SourceFile]:
    """Look up files, several at a time; errors as for `open_reader`."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="describe") as pool:
        return list(pool.map(describe, uris))


def describe(uri: str) -> SourceFile:
    """Look up one file; errors as for `open_reader`."""
    with open_reader(uri) as reader:
        return reader.describe()
