"""From a URI to a checkpoint, whatever its store and its format."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from engine.errors import FormatError
from engine.formats.discover import INDEX, Found, discover
from engine.formats.header import Header
from engine.formats.index import missing_tensors, read_index
from engine.formats.quantised import mark_quantised
from engine.formats.safetensors import read_header
from engine.nouns.records import Checkpoint, Fault, SourceFile, TensorInfo
from engine.storage import Folder, Place, locate
from engine.storage.opening import AT_ONCE

_LAYOUT_VERSION = "2"  # part of every fingerprint: raise it when a scan would come out differently
_WHOLE = ("model", "pytorch_model", "consolidated", "adapter_model")
"""File names that say nothing: the folder's name is the checkpoint's."""

# Most checkpoints are safetensors: what reads other formats is loaded where it is wanted, which saves 25 ms.


def _read_torch(uri: str) -> Header:
    from engine.formats.torch.archive import read_torch

    return read_torch(uri)


_READ_FILE: dict[str, Callable[[str], Header]] = {"safetensors": read_header, "torch": _read_torch}


@dataclass(frozen=True, slots=True)
class _Content:
    """What was found: files, tensors, what else the fingerprint covers, and faults."""

    files: tuple[SourceFile, ...]
    tensors: tuple[TensorInfo, ...]
    digests: tuple[str, ...]
    faults: tuple[Fault, ...] = ()


def open_checkpoint(uri: str, place: Place | None = None) -> Checkpoint:
    """Read the headers of a checkpoint.

    Args:
        uri: a file (safetensors, torch, a zipped Zarr store), an index of them, or a folder with any of
            these, with a Zarr group or with a distributed checkpoint; a path, or an address of the Hub
            (`hf://`), of a bucket (`s3://`, `gs://`, `az://`) or of a web server (`https://`).
        place: where that leads, if it was found out before.

    Returns:
        its description; contradictions between index and shards are in `faults`.

    Raises:
        ConfigError: there is nothing of that kind, or it may not be read.
        FormatError: a file is damaged.
        TaskError: the store does not answer.
    """
    place = place or locate(uri)
    found = discover(place)
    content = _read(place, found)
    _check_tensors(content.tensors, place.uri)
    return Checkpoint(
        uri=_printable(place.uri),
        name=_printable(_name(place, found)),
        format=found.format,
        files=content.files,
        tensors=mark_quantised(content.tensors),
        fingerprint=_fingerprint(content),
        revision=place.revision,
        faults=content.faults,
        distant=place.folder.distant,
    )


def _check_tensors(tensors: Sequence[TensorInfo], uri: str) -> None:
    """Refuse what no table could hold."""
    for tensor in tensors:
        if not tensor.name.isascii() and any("\ud800" <= c <= "\udfff" for c in tensor.name):
            shown = tensor.name.encode("utf-8", "backslashreplace").decode()[:60]
            raise FormatError(f"the name {shown} is not valid Unicode", file=uri)
        if tensor.elements >= 1 << 63 or any(s >= 1 << 63 for s in tensor.shape):
            raise FormatError("its shape overflows 64 bits", file=uri, tensor=tensor.name)


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


def _read(place: Place, found: Found) -> _Content:
    folder = place.folder
    if found.format == "zarr":
        return _read_zarr(folder, found)
    if found.format == "distcp":
        from engine.formats.torch.distributed import read_distributed

        files, tensors, digest = read_distributed(folder)
        return _Content(files, tensors, (digest,))
    if found.index is None:
        uris = [folder.address(n) for n in found.files]
        return _assemble(_headers(found.format, uris, folder.distant), (), ())
    index = read_index(folder, found.index)
    read = _headers(found.format, list(index.shards.values()), folder.distant)
    headers = dict(zip(index.shards, read, strict=True))
    missing = missing_tensors(index, {name: h.tensors for name, h in headers.items()})
    digest = hashlib.sha256(index.raw).hexdigest()
    return _assemble(list(headers.values()), (*index.faults, *missing), (digest,))


def _read_zarr(folder: Folder, found: Found) -> _Content:
    from engine.formats.zarr.group import read_group
    from engine.formats.zarr.objects import FolderObjects, ZipObjects

    objects = ZipObjects(folder.address(found.files[0])) if found.files else FolderObjects(folder)
    files, tensors, digest = read_group(objects)
    return _Content(files, tensors, (digest,))


def _headers(form: str, uris: Sequence[str], distant: bool) -> list[Header]:
    """Read the headers of files, several at a time where each costs a journey."""
    read = _READ_FILE[form]
    if len(uris) < 2 or not distant:
        return [read(uri) for uri in uris]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="headers") as pool:
        return list(pool.map(read, uris))


def _assemble(headers: Sequence[Header], faults: tuple[Fault, ...], digests: tuple[str, ...]) -> _Content:
    tensors: list[TensorInfo] = []
    owner: dict[str, int] = {}
    for number, header in enumerate(headers):
        for tensor in header.tensors:
            if tensor.name in owner:
                other = _file_name(headers[owner[tensor.name]].file.uri)
                raise FormatError(f"is also in {other}", file=header.file.uri, tensor=tensor.name)
            owner[tensor.name] = number
            pieces = tuple(replace(p, file=number) for p in tensor.pieces)
            tensors.append(replace(tensor, file=number, pieces=pieces))
    files = tuple(h.file for h in headers)
    return _Content(files, tuple(tensors), (*(h.digest for h in headers), *digests), faults)


def _fingerprint(content: _Content) -> str:
    digest = hashlib.sha256(_LAYOUT_VERSION.encode())
    for file in content.files:
        digest.update(b"\0" + os.fsencode(_file_name(file.uri)))
        digest.update(f"\0{file.size}\0{file.version}".encode())
    for text in content.digests:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


def _file_name(uri: str) -> str:
    return uri.partition("?")[0].rpartition("/")[2]


def _printable(path: str) -> str:
    """Spell out the bytes of a file name that are not UTF-8, which no table could hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _name(place: Place, found: Found) -> str:
    """Short name of a checkpoint, from where it lies."""
    if place.file is None or (found.format in ("zarr", "distcp") and not found.files):
        return place.title.removesuffix(".zarr") or "checkpoint"
    stem = place.file.removesuffix(INDEX).removesuffix(".zip").rpartition(".")[0] or place.file
    if stem in _WHOLE or place.file.endswith(INDEX) or place.revision:
        return place.title or stem
    return stem
