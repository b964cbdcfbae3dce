"""Which checkpoints a source names: by a place, a pattern, a list, a folder, a bucket or an organisation."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from engine.config.census import Source
from engine.errors import ConfigError
from engine.formats.discover import INDEX, SHARD, is_weights, looks_like_checkpoint, owns_what_is_below
from engine.nouns.candidate import Candidate
from engine.storage import BucketFolder, HubFolder, list_models, local_path, locate
from engine.storage.uris import WEB, scheme_of

_NOTHING = "holds no checkpoint"
_ANY_DEPTH = "**"


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
    found = met = 0
    for candidate in _of(source, base):
        met += 1
        if candidate.uri in seen or not _is_wanted(candidate.uri, source):
            continue
        seen.add(candidate.uri)
        found += 1
        yield candidate
        if found == source.newest:
            return
    if not found:
        reason = "no checkpoint there is asked for" if met else "no checkpoint was found there"
        yield Candidate(_address(source), skipped=reason)


def _address(source: Source) -> str:
    return next(a for a in (source.uri, source.glob, source.hub, source.under, source.list) if a is not None)


def _of(source: Source, base: Path) -> Iterator[Candidate]:
    if source.uri is not None:
        yield Candidate(source.uri, source.name)
    elif source.list is not None:
        path = os.path.expanduser(source.list)  # noqa: PTH111 - takes an unknown user for a name
        yield from map(Candidate, read_list(base / path))
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
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is no text in UTF-8", file=str(path)) from error
    except ValueError as error:  # a NUL in it
        raise ConfigError(f"is not a usable path: {error}", file=str(path)) from error
    for line in lines:
        uri = re.sub(r"(^|\s)#.*", "", line).strip()
        if uri:
            yield uri


def _matching(pattern: str) -> Iterator[Candidate]:
    if scheme_of(pattern) != "file":
        raise ConfigError("a glob is of local files; use `under` with `include` elsewhere", file=pattern)
    expanded = os.path.expanduser(pattern.removeprefix("file://"))  # noqa: PTH111 - a pattern is no path
    failed: list[OSError] = []
    taken: set[Path] = set()
    matches = {Path(match).absolute() for match in _matches(expanded, failed)}
    for path in sorted(matches):  # a folder before what lies in it
        if os.path.isdir(path):  # noqa: PTH112 - False, too, where nobody may look
            if _is_checkpoint(_names(path)):
                taken.add(path)
                yield Candidate(str(path))
            elif _ANY_DEPTH not in pattern:
                yield Candidate(str(path), skipped=_NOTHING)
        elif is_weights(path.name) and (_is_zip(path.name) or path.parent not in taken):
            yield Candidate(str(_whole(path)))
    yield from map(_unlisted, failed)


def _matches(pattern: str, failed: list[OSError]) -> set[str]:
    """Like `glob`, but links lead nowhere in circles, and no checkpoint's own folders are looked into."""
    parts = pattern.split("/")
    if _ANY_DEPTH not in parts:
        return set(glob.iglob(pattern))  # noqa: PTH207 - of any root
    at = parts.index(_ANY_DEPTH)
    head = "/".join(parts[:at]) or ("/" if at else ".")
    rest = [part for part in parts[at + 1 :] if part]
    found: set[str] = set()
    for root in filter(os.path.isdir, glob.iglob(head)):  # noqa: PTH207
        for folder, names in _folders(root, failed):
            if rest:
                found |= _matches("/".join([glob.escape(folder), *rest]), failed)
            else:
                visible = (name for name in names if not name.startswith("."))
                found |= {folder, *(str(Path(folder, name)) for name in visible)}
    return found


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
        root = local_path(uri)
        if root is None or not root.is_dir():
            raise ConfigError("there is no such folder", file=uri)
        yield from _walk(root)
        return
    if scheme_of(uri) in WEB:
        raise ConfigError("a web server lists nothing: name its checkpoints one by one", file=uri)
    place = locate(uri)
    folder = place.folder
    if place.file is not None:
        raise ConfigError("is a file, not a folder: name it as a `uri`", file=uri)
    if isinstance(folder, HubFolder):  # by the place that was asked for: that of a commit would always be new
        yield from _grouped(place.uri, ((name, None) for name in folder.tree_names()))
    elif isinstance(folder, BucketFolder):
        yield from _grouped(place.uri, ((name, file.size) for name, file in folder.tree().items()))


def _walk(root: Path) -> Iterator[Candidate]:
    """Look through local folders."""
    failed: list[OSError] = []
    for folder, names in _folders(str(root), failed):
        if _is_checkpoint(names):
            yield Candidate(folder)
        for name in sorted(filter(_is_zip, names)):
            yield Candidate(str(Path(folder) / name))
    yield from map(_unlisted, failed)


def _folders(root: str, failed: list[OSError]) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below with the names of their files, but hidden ones and those of one checkpoint.

    Links to folders are followed, but not in circles.
    """
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, onerror=failed.append, followlinks=True):
        try:
            status = os.stat(folder)  # noqa: PTH116 - as `os.walk` spells it
        except OSError as error:  # removed a moment ago
            failed.append(error)
            below.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        visible = sorted(name for name in below if not name.startswith("."))
        below[:] = [] if owns_what_is_below(names) else visible
        yield folder, names


def _unlisted(error: OSError) -> Candidate:
    return Candidate(str(error.filename), skipped=f"cannot be listed: {error.strerror}")


def _is_checkpoint(names: Iterable[str]) -> bool:
    return looks_like_checkpoint(name for name in names if not _is_zip(name))


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zarr.zip") and is_weights(name)


def _grouped(root: str, files: Iterable[tuple[str, int | None]]) -> Iterator[Candidate]:
    """Find the checkpoints in a listing of everything."""
    folders: dict[tuple[str, ...], dict[str, int | None]] = {}
    for path, size in files:
        *parents, name = path.split("/")
        if not any(part.startswith(".") for part in parents):
            folders.setdefault(tuple(parents), {})[name] = size
    owner: tuple[str, ...] | None = None
    for folder in sorted(folders):  # what is below a folder comes right behind it
        names = folders[folder]
        if owner is not None and folder[: len(owner)] == owner:
            continue
        where = "/".join((root, *folder))
        if _is_checkpoint(names):
            yield Candidate(where, nbytes=_size(names))
        for name in sorted(filter(_is_zip, names)):
            yield Candidate(f"{where}/{name}", nbytes=names[name])
        if owns_what_is_below(names):
            owner = folder


def _size(names: dict[str, int | None]) -> int | None:
    """Bytes of the files that will be read; None where names do not tell which these are."""
    weights = [n for n in names if is_weights(n) and not n.endswith(INDEX) and not _is_zip(n)]
    read = [n for n in weights if n.endswith(".safetensors")]
    read = read or [n for n in weights if n.startswith("pytorch_model")] or weights
    if any(n.endswith(INDEX) for n in names):
        read = [n for n in read if SHARD.match(n)]
    sizes = [size for n in read if (size := names[n]) is not None]
    return sum(sizes) if sizes and len(sizes) == len(read) and not owns_what_is_below(names) else None
