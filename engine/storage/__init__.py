"""Bytes at offsets, wherever they lie."""

from __future__ import annotations

from engine.storage.folders import BucketFolder, Folder, HubFolder
from engine.storage.hub import list_models
from engine.storage.local import LocalReader, local_path, page_cache_bytes
from engine.storage.locate import Place, locate
from engine.storage.opening import describe_all, open_reader, read_whole
from engine.storage.reader import Reader, read_bytes

__all__ = [
    "BucketFolder",
    "Folder",
    "HubFolder",
    "LocalReader",
    "Place",
    "Reader",
    "describe_all",
    "list_models",
    "local_path",
    "locate",
    "open_reader",
    "page_cache_bytes",
    "read_bytes",
    "read_whole",
]
