"""What a user's URI leads to: a folder, and perhaps one file of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from engine.errors import ConfigError, MissingError, shown
from engine.storage.folders import BucketFolder, Folder, HubFolder, LocalFolder, WebFolder
from engine.storage.hub import HubAddress, look_up, parse_address
from engine.storage.local import local_path
from engine.storage.opening import open_reader
from engine.storage.reader import read_bytes
from engine.storage.stores import split_address
from engine.storage.uris import BUCKETS, HUB, WEB, scheme_of

_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".json", ".zip")


@dataclass(frozen=True, slots=True)
class Place:
    """What a URI leads to.

    Attributes:
        uri: the place, absolute, without anything secret.
        folder: the folder named, or the one that holds the file named.
        file: the file's name in the folder; None when a folder was named.
        title: what people call the place.
        revision: the commit of a versioned store, "" elsewhere.
    """

    uri: str
    folder: Folder
    file: str | None
    title: str
    revision: str = ""


def locate(uri: str) -> Place:
    """Find out what a URI leads to.

    Raises:
        ConfigError: nothing is there, or it may not be seen.
        TaskError: the store does not answer.
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        return _local(uri)
    if scheme == HUB:
        return _hub(uri)
    if scheme in BUCKETS:
        return _bucket(uri)
    if scheme in WEB:
        return _web(uri)
    known = ", ".join(f"{s}://" for s in (HUB, *dict.fromkeys(BUCKETS.values()), *WEB))
    raise ConfigError(f"{scheme}:// is no store that can be read; there are: a path, {known}", file=uri)


def _local(uri: str) -> Place:
    path = local_path(uri)
    if path is None:
        raise ConfigError("there is no such file or directory", file=uri)
    if path.is_dir():
        return Place(str(path), LocalFolder(path), None, *_snapshot(path, path.name))
    return Place(str(path), LocalFolder(path.parent), path.name, *_snapshot(path.parent, path.parent.name))


def _snapshot(folder: Path, otherwise: str) -> tuple[str, str]:
    """Title and revision of a directory: a snapshot in a Hub cache has both from the Hub."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/"), folder.name
    return otherwise, ""


def _hub(uri: str) -> Place:
    address = parse_address(uri)
    repository = look_up(address)
    if address.path in repository.paths:
        parent, _, file = address.path.rpartition("/")
        folder = HubFolder(HubAddress(address.repo, address.revision, parent), repository)
        return Place(str(address), folder, file, address.repo, repository.commit)
    whole = HubFolder(address, repository)
    if address.path and not whole.tree_names():
        raise ConfigError(f"the repository has no {address.path!r} at {repository.commit[:12]}", file=uri)
    title = address.repo + (f"/{address.path}" if address.path else "")
    return Place(str(address), whole, None, title, repository.commit)


def _bucket(uri: str) -> Place:
    root, path = split_address(uri)
    uri = f"{root}/{path}".rstrip("/")
    title = uri.rpartition("/")[2]
    parent, name = uri.rpartition("/")[::2]
    if path and _is_file(uri, name):
        return Place(uri, BucketFolder(parent), name, parent.rpartition("/")[2] or title)
    return Place(uri, BucketFolder(uri), None, title)


def _web(uri: str) -> Place:
    split_address(uri)  # refuses what names no server
    parts = urlsplit(uri)
    path = parts.path.rstrip("/")
    name = path.rpartition("/")[2]
    whole = shown(uri).rstrip("/")
    if name and not parts.path.endswith("/") and _is_file(uri, name):
        base = uri.partition("?")
        folder = WebFolder(base[0].rpartition("/")[0] + base[1] + base[2])
        return Place(whole, folder, name, path.rpartition("/")[0].rpartition("/")[2] or parts.netloc)
    return Place(whole, WebFolder(uri), None, name or parts.netloc)


def _is_file(uri: str, name: str) -> bool:
    """Whether a file is there; one whose name has no dot must look like weights.

    Raises:
        ConfigError: why it cannot be read.
    """
    try:
        with open_reader(uri) as reader:
            size = reader.describe().size
            return "." in name or _looks_like_weights(read_bytes(reader, 0, min(size, 16)))
    except MissingError:
        if name.lower().endswith(_SUFFIXES):
            raise
        return False
    except ConfigError:
        if "." in name:
            raise
        return False  # a server may refuse to show a folder, and yet the files in it


def _looks_like_weights(start: bytes) -> bool:
    """Whether bytes begin as a zip archive or a safetensors file does."""
    return start[:4] == b"PK\x03\x04" or start[8:9] == b"{"
