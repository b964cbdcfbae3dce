"""A distributed checkpoint of torch: `.metadata` says what lies where in the `.distcp` files.

Source: torch/distributed/checkpoint/metadata.py and filesystem.py. Each part is a torch archive of its own
within a file; the metadata is a pickle, which is read as carefully as any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from engine.errors import FormatError
from engine.formats.marks import METADATA
from engine.formats.strided import c_strides, is_row_major
from engine.formats.torch.archive import open_archive, tensor_info
from engine.formats.torch.pickle_machine import Buildable, Known
from engine.formats.torch.state_dict import Named, find_weights
from engine.formats.torch.vocabulary import MAX_PICKLE_BYTES, DtypeName, Inert, Tensor, load
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Piece, SourceFile, TensorInfo, View
from engine.storage import Folder, describe_all, open_reader, read_whole
from engine.storage.opening import AT_ONCE

_MODULE = "torch.distributed.checkpoint"


class Record(Buildable):
    """Stands for a dataclass of the metadata: whatever was in it."""

    state: Any = None

    def __init__(self, *_: Any) -> None: ...

    def build(self, state: Any) -> None:
        """Keep the fields."""
        self.state = state

    def get(self, key: str) -> Any:
        """A field, None when there is none."""
        return self.state.get(key) if isinstance(self.state, Mapping) else None


class TensorRecord(Record):
    """Stands for TensorStorageMetadata."""


_CLASSES: dict[tuple[str, str], Any] = {
    **{(f"{_MODULE}.metadata", name): Known(Record) for name in (
        "Metadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties", "MetadataIndex",
        "StorageMeta",
    )},
    (f"{_MODULE}.metadata", "TensorStorageMetadata"): Known(TensorRecord),
    (f"{_MODULE}.metadata", "_MEM_FORMAT_ENCODING"): Known(Inert),
    (f"{_MODULE}.filesystem", "_StorageInfo"): Known(Record),
    (f"{_MODULE}.filesystem", "_StoragePrefix"): Known(Record),
    **{(module, name): Known(Inert) for module in ("pathlib", "pathlib._local") for name in (
        "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path",
    )},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a tensor: where its archive lies, and how many elements it should have."""

    name: str
    corner: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int


def read_distributed(folder: Folder) -> tuple[tuple[SourceFile, ...], tuple[TensorInfo, ...], str]:
    """Read the metadata and the archives' own descriptions.

    Returns:
        the files that hold parts, the tensors, and a digest of the metadata.

    Raises:
        FormatError: something is missing, damaged, or asks for anything but weights.
    """
    uri = folder.address(METADATA)
    data = read_whole(uri, MAX_PICKLE_BYTES)
    metadata = load(data, uri, _CLASSES)
    if not isinstance(metadata, Record):
        raise FormatError("is no metadata of a distributed checkpoint", file=uri)
    records, places = metadata.get("state_dict_metadata"), metadata.get("storage_data")
    if not isinstance(records, Mapping) or not isinstance(places, Mapping):
        raise FormatError("has no state_dict_metadata and storage_data", file=uri)
    named = _named(records, metadata.get("planner_data"), uri)
    placed = _by_tensor(places)
    parts = {n: _parts(n, records[n], placed.get(n, ()), uri) for n in named}
    names = sorted({p.file for of in parts.values() for p in of})
    for name in names:
        _check_inside(folder, name, uri)
    files = tuple(describe_all([folder.address(n) for n in names]))
    numbers = {n: (i, f) for i, (n, f) in enumerate(zip(names, files, strict=True))}
    tensors = _tensors(named, records, parts, numbers, uri)
    return files, tensors, hashlib.sha256(data).hexdigest()


def _check_inside(folder: Folder, name: str, uri: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise FormatError(f"names a file outside its directory: {name!r}", file=uri)
    if not folder.has(name):
        raise FormatError(f"names the file {name!r}, which is not there", file=uri)
    folder.check_inside(name, uri)


def _named(records: Mapping[str, Any], paths: Any, uri: str) -> dict[str, Named]:
    """Name and standing of each tensor by its key in the metadata."""
    stands: dict[int, str] = {}
    nested: dict[str, Any] = {}
    for key, record in records.items():
        if isinstance(record, TensorRecord):
            tensor = Tensor(None, 0, (), (), "F32")
            stands[id(tensor)] = key
            path = paths.get(key) if isinstance(paths, Mapping) else None
            _put(
                nested, tuple(map(str, path)) if isinstance(path, (tuple, list)) and path else (key,), tensor
            )
    try:
        found = find_weights(nested)
    except ValueError as error:
        raise FormatError(str(error), file=uri) from error
    return {stands[id(n.tensor)]: n for n in found}


def _put(nested: dict[str, Any], path: tuple[str, ...], tensor: Tensor) -> None:
    for key in path[:-1]:
        inner = nested.setdefault(key, {})
        if not isinstance(inner, dict):
            inner = nested[key] = {"": inner}
        nested = inner
    nested[path[-1]] = tensor


def _by_tensor(places: Mapping[Any, Any]) -> dict[str, list[tuple[Record, Record]]]:
    """The places of the parts of each tensor."""
    found: dict[str, list[tuple[Record, Record]]] = {}
    for index, place in places.items():
        if isinstance(index, Record) and isinstance(place, Record):
            found.setdefault(str(index.get("fqn")), []).append((index, place))
    return found


def _parts(key: str, record: Record, places: Sequence[tuple[Record, Record]], uri: str) -> list[_Part]:
    """The parts of a tensor, each with its place."""
    shape = _shape(record.get("size"), uri, key)
    chunks = record.get("chunks") or ()
    if not isinstance(chunks, (list, tuple)) or not all(isinstance(c, Record) for c in chunks):
        raise FormatError("its parts make no sense", file=uri, tensor=key)
    wanted = {_shape(c.get("offsets"), uri, key): _shape(c.get("sizes"), uri, key) for c in chunks}
    if not _tile(wanted, shape):
        raise FormatError(f"its parts do not add up to its shape {shape}", file=uri, tensor=key)
    found = []
    for index, place in places:
        corner = _shape(index.get("offset") or (), uri, key)
        if place.get("transform_descriptors"):
            raise FormatError("is compressed by an extension", file=uri, tensor=key)
        file, offset, nbytes = (place.get(k) for k in ("relative_path", "offset", "length"))
        whole = all(isinstance(x, int) and x >= 0 for x in (offset, nbytes))
        if not isinstance(file, str) or not whole or corner not in wanted:
            raise FormatError("the place of a part of it makes no sense", file=uri, tensor=key)
        found.append(_Part(key, corner, wanted.pop(corner), file, offset, nbytes))
    if wanted:
        corner = next(iter(wanted))
        raise FormatError(f"its part at {corner} is in no file", file=uri, tensor=key)
    return sorted(found, key=lambda p: p.corner)


def _tile(boxes: Mapping[tuple[int, ...], tuple[int, ...]], shape: tuple[int, ...]) -> bool:
    """Whether boxes, by their corners, cover a shape once."""
    rank = len(shape)
    if any(len(c) != rank or len(s) != rank for c, s in boxes.items()):
        return False
    if sum(map(prod, boxes.values())) != prod(shape):
        return False
    filled = [(c, s) for c, s in boxes.items() if prod(s)]
    if not filled or not rank:
        return True
    low = np.array([c for c, _ in filled], dtype=np.int64)
    high = low + np.array([s for _, s in filled], dtype=np.int64)
    if (high > np.array(shape)).any():
        return False
    for i in range(len(filled) - 1):  # none meets one behind it
        if ((low[i] < high[i + 1 :]) & (low[i + 1 :] < high[i])).all(axis=1).any():
            return False
    return True


def _shape(value: Any, uri: str, key: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(isinstance(x, int) and x >= 0 for x in value):
        raise FormatError("its shape makes no sense", file=uri, tensor=key)
    return value


def _tensors(
    named: Mapping[str, Named],
    records: Mapping[str, Record],
    parts: Mapping[str, Sequence[_Part]],
    files: Mapping[str, tuple[int, SourceFile]],
    uri: str,
) -> tuple[TensorInfo, ...]:
    every = sorted((p for of in parts.values() for p in of), key=lambda p: (p.file, p.offset))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="distcp") as pool:
        shapes = {k: records[k].get("size") for k in named}
        read = dict(
            zip(every, pool.map(lambda p: _pieces(p, shapes[p.name], *files[p.file]), every), strict=True)
        )
    tensors = []
    for key, name in named.items():
        pieces = tuple(piece for p in parts[key] for piece in read[p][1])
        dtype = _dtype(key, records[key], [read[p][0] for p in parts[key]], uri)
        shape = records[key].get("size")
        first = pieces[0] if pieces else Piece(0, 0, 0, 0)
        nbytes = DTYPES[dtype].nbytes(prod(shape)) or 0
        ordered = all(p.at is None for p in pieces)
        info = TensorInfo(name.name, dtype, shape, first.file, first.offset, nbytes, pieces, ordered)
        tensors.append(name.standing(info))
    return tuple(sorted(tensors, key=lambda t: (t.file, t.offset, t.name)))


def _dtype(key: str, record: Record, found: Sequence[str], uri: str) -> str:
    """The dtype of the parts, and of a tensor without any the one that was declared."""
    if len(set(found)) > 1:
        raise FormatError(f"its parts are of {' and '.join(sorted(set(found)))}", file=uri, tensor=key)
    if found:
        return found[0]
    properties = record.get("properties")
    state = properties.state if isinstance(properties, Record) else None
    declared = state[0] if isinstance(state, tuple) and state else None
    return declared.name if isinstance(declared, DtypeName) else "F32"


def _pieces(
    part: _Part, shape: tuple[int, ...], number: int, file: SourceFile
) -> tuple[str, tuple[Piece, ...]]:
    """Dtype and pieces of a part of a tensor of a shape, from its archive."""
    if part.offset + part.nbytes > file.size:
        raise FormatError(
            f"its part at {part.corner} ends at byte {part.offset + part.nbytes:,} of {file.size:,}",
            file=file.uri,
            tensor=part.name,
        )
    with open_reader(file.uri) as reader:
        archive = open_archive(reader, file.uri, part.offset, part.nbytes)
    if not isinstance(archive.saved, Tensor) or archive.saved.storage is None:
        raise FormatError(f"its part at {part.corner} is no plain tensor", file=file.uri, tensor=part.name)
    rows = part.shape[1:] == shape[1:] and is_row_major(archive.saved.shape, archive.saved.strides)
    info = tensor_info(part.name, archive.saved, archive, at=None if rows else _place(part, shape))
    if info.shape != part.shape:
        message = f"its part at {part.corner} has shape {info.shape}, expected {part.shape}"
        raise FormatError(message, file=file.uri, tensor=part.name)
    return info.dtype, tuple(replace(p, file=number) for p in info.stored)


def _place(part: _Part, shape: tuple[int, ...]) -> View:
    """Which elements of its tensor a part is. Whole rows need none: they follow those of the part before."""
    steps = c_strides(shape)
    return View(sum(c * s for c, s in zip(part.corner, steps, strict=True)), part.shape, steps)
