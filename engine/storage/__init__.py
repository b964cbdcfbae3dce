"""Bytes at offsets, wherever they lie."""

from __future__ import annotations

from engine.storage.local import LocalReader, describe_file, local_path, page_cache_bytes
from engine.storage.reader import Reader

__all__ = ["LocalReader", "Reader", "describe_file", "local_path", "open_reader", "page_cache_bytes"]


def open_reader(uri: str) -> Reader:
    """Open a file for positional reads.

    Raises:
        FormatError: it is not there or cannot be read.
    """
    return LocalReader(uri)
