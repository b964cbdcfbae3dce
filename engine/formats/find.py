"""Which checkpoints a source names: by a place, a pattern, a list, a folder, a bucket or an organisation."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from engine.config.census import Source
from engine.errors import ConfigError
from engine.formats.discover import INDEX, SHARD, is_weights, looks_like_checkpoint, owns_what_is_below
from engine.nouns.candidate import Candidate
from engine.storage import BucketFolder, HubFolder, list_models, locate
from engine.storage.uris import scheme_of

_NOTHING = "holds no checkpoint"


def find_checkpoints(source: Source, base: Path) -> Iterator[Candidate]:
    """Go through what a source names, each place once, in an order that does not change.

    Args:
        source: exactly one kind of place, and patterns.
        base: what a list file's name is relative to.

    Yields:
        candidates, found as they are asked for; what is no checkpoint has a reason.

    Raises:
        ConfigError, TaskError: the source itself cannot be looked through.
    """
    seen: set[str] = set()
    found = 0
    for candidate in _of(source, base):
        if candidate.uri in seen or not _is_wanted(candidate.uri, source):
            continue
        seen.add(candidate.uri)
        found += 1
        yield candidate
        if found == source.newest:
            return
    if not found:
        yield Candidate(_address(source), skipped="no checkpoint was found there")


def _address(source: Source) -> str:
    return next(a for a in (source.uri, source.glob, source.hub, source.under, source.list) if a is not None)


def _of(source: Source, base: Path) -> Iterator[Candidate]:
    if source.uri is not None:
        yield Candidate(source.uri, source.name)
    elif source.list is not None:
        yield from map(Candidate, read_list(base / Path(source.list).expanduser()))
    elif source.glob is not None:
        yield from _matching(source.glob)
    elif source.hub is not None:
        yield from (Candidate(f"hf://{name}") for name in list_models(source.hub))
    elif source.under is not None:
        yield from _under(source.under)


def _is_wanted(uri: str, source: Source) -> bool:
    names = (uri, uri.removeprefix("hf://"))

    def matches(pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names)

    wanted = not source.include or any(map(matches, source.include))
    return wanted and not any(map(matches, source.exclude))


def read_list(path: Path) -> Iterator[str]:
    """The places that a list file names, one a line.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is no text in UTF-8", file=str(path)) from error
    for line in lines:
        uri = re.sub(r"(^|\s)#.*", "", line).strip()
        if uri:
            yield uri


def _matching(pattern: str) -> Iterator[Candidate]:
    if scheme_of(pattern) != "file":
        raise ConfigError("a glob is of local files; use `under` with `include` elsewhere", file=pattern)
    expanded = os.path.expanduser(pattern.removeprefix("file://"))  # noqa: PTH111 - a pattern is no path
    for match in sorted(glob.iglob(expanded, recursive=True)):  # noqa: PTH207 - of any root
        path = Path(match)
        if path.is_dir():
            if looks_like_checkpoint(_names(path)):
                yield Candidate(str(path))
            elif "**" not in pattern:
                yield Candidate(str(path), skipped=_NOTHING)
        elif is_weights(path.name):
            yield Candidate(str(_whole(path)))


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:  # opening it says why
        return ["model.safetensors"]


def _whole(path: Path) -> Path:
    """The checkpoint that a file is a shard of, or the file."""
    match = SHARD.match(path.name)
    if match is None:
        return path
    index = path.with_name(match["stem"] + match["suffix"] + INDEX)
    return index if index.is_file() else path.parent


def _under(uri: str) -> Iterator[Candidate]:
    if scheme_of(uri) == "file":
        root = Path(uri.removeprefix("file://")).expanduser()
        if not root.is_dir():
            raise ConfigError("there is no such folder", file=uri)
        yield from _walk(root)
        return
    folder = locate(uri).folder
    if isinstance(folder, HubFolder):
        yield from _grouped(folder.uri, ((name, None) for name in folder.tree_names()))
    elif isinstance(folder, BucketFolder):
        yield from _grouped(folder.uri, ((name, file.size) for name, file in folder.tree().items()))
    else:
        raise ConfigError("a web server lists nothing: name its checkpoints one by one", file=uri)


def _walk(root: Path) -> Iterator[Candidate]:
    """Look through local folders, hidden ones apart; links to folders are followed, but not in circles."""
    failed: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for directory, below, names in os.walk(root, onerror=failed.append, followlinks=True):
        status = Path(directory).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        if looks_like_checkpoint(names):
            yield Candidate(directory)
        for name in sorted(n for n in names if n.endswith(".zarr.zip")):
            yield Candidate(str(Path(directory) / name))
        if owns_what_is_below(names):
            below.clear()
    for error in failed:
        yield Candidate(str(error.filename), skipped=f"cannot be listed: {error.strerror}")


def _grouped(root: str, files: Iterable[tuple[str, int | None]]) -> Iterator[Candidate]:
    """Find the checkpoints in a listing of everything."""
    folders: dict[str, dict[str, int | None]] = {}
    for path, size in files:
        parent, _, name = path.rpartition("/")
        if not any(part.startswith(".") for part in PurePosixPath(parent).parts):
            folders.setdefault(parent, {})[name] = size
    owners: list[str] = []
    for folder in sorted(folders):
        names = folders[folder]
        if any(folder == o or folder.startswith(f"{o}/") or not o for o in owners):
            continue
        where = f"{root}/{folder}".rstrip("/")
        if looks_like_checkpoint(names):
            yield Candidate(where, nbytes=_size(names))
        for name in sorted(n for n in names if n.endswith(".zarr.zip")):
            yield Candidate(f"{where}/{name}", nbytes=names[name])
        if owns_what_is_below(names):
            owners.append(folder)


def _size(names: dict[str, int | None]) -> int | None:
    sizes = [size for name, size in names.items() if is_weights(name)]
    return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None
