"""From a URI to a checkpoint, whatever its format."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from engine.errors import ConfigError, FormatError
from engine.formats.index import Index, missing_tensors, read_index
from engine.formats.safetensors import Header, read_header
from engine.nouns.records import Checkpoint, Fault, TensorInfo
from engine.storage import local_path

_INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors$")
_LAYOUT_VERSION = "1"  # part of every fingerprint: raise it when a scan would come out differently


def open_checkpoint(uri: str) -> Checkpoint:
    """Read the headers of a checkpoint.

    Args:
        uri: a `.safetensors` file, an index (`*.safetensors.index.json`), or a directory with either.

    Returns:
        its description; contradictions between index and shards are in `faults`.

    Raises:
        ConfigError: there is nothing of that kind.
        FormatError: a file is damaged.
    """
    if "://" in uri and not uri.startswith("file://"):
        raise ConfigError(f"the store {uri.split('://', maxsplit=1)[0]}:// is not supported yet", file=uri)
    path = local_path(uri)
    if path is None:
        raise ConfigError("there is no such file or directory", file=uri)
    if path.is_dir():
        return _directory(path)
    if path.name.endswith(_INDEX_SUFFIX):
        return _sharded(path, path)
    if path.suffix == ".safetensors":
        return _plain(path, [path])
    raise ConfigError("is not a checkpoint: expected *.safetensors, its index, or a directory", file=uri)


def require_sound(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose index and shards contradict each other.

    Raises:
        FormatError: with the first fault, and how many more there are.
    """
    if not checkpoint.faults:
        return
    first, *rest = checkpoint.faults
    more = f" (and {len(rest):,} more like it)" if rest else ""
    raise FormatError(first.message + more, file=first.file, tensor=first.tensor)


def _directory(path: Path) -> Checkpoint:
    indexes = sorted(p for p in path.iterdir() if p.name.endswith(_INDEX_SUFFIX))
    preferred = path / f"model{_INDEX_SUFFIX}"
    if preferred in indexes:
        return _sharded(path, preferred)
    if len(indexes) > 1:
        names = ", ".join(p.name for p in indexes)
        raise ConfigError(f"has several indexes ({names}): name one of them", file=str(path))
    if indexes:
        return _sharded(path, indexes[0])
    files = sorted(p for p in path.iterdir() if p.suffix == ".safetensors")
    if not files:
        raise ConfigError("has no *.safetensors file and no index of one", file=str(path))
    _check_all_shards(path, files)
    return _plain(path, files)


def _check_all_shards(directory: Path, files: list[Path]) -> None:
    """Without an index the numbers in the shards' names tell whether all are there."""
    seen: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.match(file.name):
            seen.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (stem, count), numbers in seen.items():
        if missing := sorted(set(range(1, count + 1)) - numbers):
            name = f"{stem}-{missing[0]:05d}-of-{count:05d}.safetensors"
            raise FormatError(
                f"the shard {name!r} is not there ({len(missing)} of {count} missing)", file=str(directory)
            )


def _plain(place: Path, files: list[Path]) -> Checkpoint:
    return _assemble(place, [read_header(str(f)) for f in files], [], ())


def _sharded(place: Path, index_path: Path) -> Checkpoint:
    index: Index = read_index(index_path)
    headers = {name: read_header(str(shard)) for name, shard in index.shards.items()}
    faults = [*index.faults, *missing_tensors(index, {name: h.tensors for name, h in headers.items()})]
    return _assemble(place, list(headers.values()), faults, (index.raw,))


def _assemble(
    place: Path, headers: list[Header], faults: list[Fault], extra: tuple[bytes, ...]
) -> Checkpoint:
    tensors: list[TensorInfo] = []
    owner: dict[str, int] = {}
    for number, header in enumerate(headers):
        for tensor in header.tensors:
            if tensor.name in owner:
                other = Path(headers[owner[tensor.name]].file.uri).name
                raise FormatError(f"is also in {other}", file=header.file.uri, tensor=tensor.name)
            owner[tensor.name] = number
            tensors.append(replace(tensor, file=number))
    name, revision = _name(place)
    return Checkpoint(
        uri=_printable(str(place)),
        name=_printable(name),
        format="safetensors",
        files=tuple(h.file for h in headers),
        tensors=tuple(tensors),
        fingerprint=_fingerprint(headers, extra),
        revision=revision,
        faults=tuple(faults),
    )


def _fingerprint(headers: list[Header], extra: tuple[bytes, ...]) -> str:
    digest = hashlib.sha256(_LAYOUT_VERSION.encode())
    for h in headers:
        digest.update(b"\0" + os.fsencode(Path(h.file.uri).name))
        digest.update(f"\0{h.file.size}\0{h.file.version}\0{h.digest}".encode())
    for raw in extra:
        digest.update(b"\0" + hashlib.sha256(raw).digest())
    return digest.hexdigest()


def _printable(path: str) -> str:
    """Spell out the bytes of a file name that are not UTF-8, which no table could hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _name(place: Path) -> tuple[str, str]:
    """Short name and revision of a checkpoint, from where it lies."""
    home = place if place.is_dir() else place.parent
    if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
        return home.parent.parent.name.removeprefix("models--").replace("--", "/"), home.name
    stem = place.name.removesuffix(_INDEX_SUFFIX).removesuffix(".safetensors")
    if not place.is_dir() and (stem == "model" or place.name.endswith(_INDEX_SUFFIX)):
        return home.name or stem, ""
    return (place.name if place.is_dir() else stem) or "checkpoint", ""
