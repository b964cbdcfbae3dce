"""One Zarr array as a tensor: its chunks as pieces, sharded or not, compressed or not.

Source: the Zarr version 3 core specification and its sharding codec (ZEP 2). zarr reads and checks the
metadata; the chunks are found here, because a scan wants byte ranges, and because zarr reads a missing
chunk as zeros.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from engine.errors import FormatError
from engine.formats.strided import c_strides, is_row_major, view_pieces
from engine.formats.zarr.objects import Blob
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Piece, TensorInfo, View

LOGICAL = "logical_dtype"
"""The attribute that says what the integers of an array stand for."""
TENSOR_NAME = "tensor_name"
"""The attribute that keeps a name that no path can have."""

MOST_CHUNK_BYTES = 2 << 30
"""A compressed chunk is in memory as a whole."""
MARK = "gaussmeter"
"""The attribute that says where an array or a group was packed from, and whether it is whole."""

_COMPRESSORS = ("zstd", "gzip", "blosc")
CODECS = (*_COMPRESSORS, "crc32c")
_NATIVE = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL", "complex64": "C64",
    "complex128": "C128",
    **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_STORED_AS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8",
              "float8_e4m3fnuz": "uint8", "float8_e5m2fnuz": "uint8"}  # fmt: skip
_LOGICAL = {
    "bfloat16": "BF16", "bf16": "BF16", "float16": "F16", "f16": "F16",
    "float8_e4m3fn": "F8_E4M3", "float8_e4m3": "F8_E4M3", "f8_e4m3": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "f8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ", "f8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "f8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0", "f8_e8m0": "F8_E8M0",
    **{name.lower(): name for name in ("F4", "F6_E2M3", "F6_E3M2")},
}  # fmt: skip
_ABSENT = 2**64 - 1
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, ZeroDivisionError)
"""What zarr raises of metadata that is not valid."""
_CHECKSUM_BYTES = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """What the metadata of an array says.

    Attributes:
        path: in the group; "" for a store that is one array.
        name: the tensor's name.
        dtype: by safetensors' spelling.
        shape: its dimensions.
        grid: shape of the objects that it is stored in.
        chunk: shape of the chunks in them, the same when it is not sharded.
        sharded: whether objects hold several chunks and an index.
        checked: whether the index carries a checksum.
        index_first: whether the index comes first.
        order: dimensions of a chunk in the order in which they are stored.
        codecs: what undoes the compression of a chunk.
        count: how many objects there are.
        key: the key of an object by its place in the grid.
    """

    path: str
    name: str
    dtype: str
    shape: Shape
    grid: Shape
    chunk: Shape
    sharded: bool
    checked: bool
    index_first: bool
    order: Shape
    codecs: tuple[str, ...]
    count: int
    key: Callable[[Shape], str]

    @property
    def item(self) -> int:
        """Bytes of an element as stored."""
        return max(1, DTYPES[self.dtype].bits // 8)

    @property
    def in_object(self) -> Shape:
        """How many chunks an object has along each dimension."""
        return tuple(g // c for g, c in zip(self.grid, self.chunk, strict=True))

    def objects(self) -> Iterator[tuple[Shape, str]]:
        """The place of each object in the grid, and its key, in C order."""
        if not self.count:
            return
        outer = [-(-s // g) for s, g in zip(self.shape, self.grid, strict=True)]
        for place in _places(outer):
            yield place, self.key(place)

    @property
    def index_bytes(self) -> int:
        """Length of the index of an object."""
        return 16 * prod(self.in_object) + _CHECKSUM_BYTES * self.checked


def read_array(path: str, document: Mapping[str, Any], uri: str) -> Array:
    """Understand the metadata of an array.

    Args:
        path: of the array in the group.
        document: its zarr.json.
        uri: of the store, for messages.

    Raises:
        FormatError: it is not valid, or stored in a way that cannot be read.
    """
    from zarr.core.metadata.v3 import ArrayV3Metadata
    from zarr.errors import ZarrUserWarning

    stored = str(document.get("data_type"))
    try:
        plain = {**document, "data_type": _STORED_AS.get(stored, document.get("data_type"))}
        plain.pop("consolidated_metadata", None)
        if stored in _STORED_AS:
            plain["fill_value"] = 0  # nothing is filled, and that of a float is no integer
        with warnings.catch_warnings():  # what cannot be read is refused below, in a sentence
            warnings.simplefilter("ignore", ZarrUserWarning)
            metadata = ArrayV3Metadata.from_dict(plain)
        grid = tuple(metadata.chunk_grid.chunk_shape)  # type: ignore[attr-defined]
    except _MALFORMED as error:
        raise FormatError(f"its metadata is not valid: {str(error)[:200]}", file=uri, tensor=path) from error
    attributes = document.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise FormatError("its attributes are no object", file=uri, tensor=path)
    shape = tuple(metadata.shape)
    dtype = _dtype(stored, attributes, uri, path)
    known = dtype != "OTHER"  # what is no number is only listed, however it is stored
    codecs, sharding = _codecs(document["codecs"], uri, path) if known else ((), None)
    chunk = tuple(sharding["chunk_shape"]) if sharding else grid
    if any(c < 1 or g < 1 or g % c for g, c in zip(grid, chunk, strict=True)):
        raise FormatError(f"its shards {grid} are no multiple of its chunks {chunk}", file=uri, tensor=path)
    order = tuple(range(len(shape)))
    for codec in codecs:
        if codec["name"] == "transpose":
            order = tuple(order[i] for i in codec["configuration"]["order"])
    return Array(
        path,
        str(attributes.get(TENSOR_NAME, path.replace("/", "."))),
        dtype,
        shape,
        grid,
        chunk,
        sharding is not None,
        sharding is not None and len(sharding["index_codecs"]) > 1,
        sharding is not None and sharding.get("index_location") == "start",
        order,
        tuple(c["name"] for c in reversed(codecs) if c["name"] in CODECS),
        prod(-(-s // g) for s, g in zip(shape, grid, strict=True)) if known else 0,
        lambda at: _join(path, metadata.encode_chunk_key(at)),
    )


def _places(counts: Sequence[int]) -> Iterator[Shape]:
    """Every index of a grid in C order; unlike itertools.product it holds none of them."""
    if not counts:
        yield ()
        return
    for first in range(counts[0]):
        for rest in _places(counts[1:]):
            yield (first, *rest)


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _dtype(stored: str, attributes: Mapping[str, Any], uri: str, path: str) -> str:
    """What the elements are: as stored, unless an attribute says what the integers stand for."""
    if stored in _STORED_AS:
        return _LOGICAL[stored]
    if LOGICAL in attributes:
        wanted = str(attributes[LOGICAL]).lower().removeprefix("torch.").removeprefix("ml_dtypes.")
        logical = _LOGICAL.get(wanted) or _NATIVE.get(wanted)
        native = _NATIVE.get(stored)
        if logical is None or native is None or _bits(logical) != DTYPES[native].bits:
            raise FormatError(f"its {LOGICAL} {wanted!r} cannot be stored as {stored}", file=uri, tensor=path)
        return logical
    return _NATIVE.get(stored, "OTHER")


def _bits(dtype: str) -> int:
    return max(8, DTYPES[dtype].bits)


def _codecs(
    declared: Sequence[Mapping[str, Any]], uri: str, path: str
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any] | None]:
    """Codecs of a chunk, and the configuration of the shards, if there are any."""
    sharding = None
    if declared[0]["name"] == "sharding_indexed":
        if len(declared) > 1:
            raise FormatError("its shards are compressed as a whole", file=uri, tensor=path)
        sharding = declared[0]["configuration"]
        _check_codecs(sharding["index_codecs"], ("bytes", "crc32c"), uri, path)
        declared = sharding["codecs"]
    _check_codecs(declared, ("transpose", "bytes", *CODECS), uri, path)
    if sum(c["name"] in _COMPRESSORS for c in declared) > 1:
        raise FormatError("it is compressed twice", file=uri, tensor=path)
    return declared, sharding


def _check_codecs(codecs: Sequence[Mapping[str, Any]], known: Sequence[str], uri: str, path: str) -> None:
    for codec in codecs:
        name, configuration = codec["name"], codec.get("configuration") or {}
        if name not in known:
            raise FormatError(f"its codec {name!r} is not one of {', '.join(known)}", file=uri, tensor=path)
        if name == "bytes" and configuration.get("endian", "little") != "little":
            raise FormatError("its numbers are big endian, expected little", file=uri, tensor=path)


def index_blob(array: Array, blob: Blob, key: str, uri: str) -> Blob:
    """Where the index of a shard lies.

    Raises:
        FormatError: the shard is too short to have one.
    """
    if blob.nbytes < array.index_bytes:
        raise FormatError(
            f"its shard {key} has {blob.nbytes:,} bytes, fewer than its index", file=uri, tensor=array.name
        )
    start = blob.offset if array.index_first else blob.offset + blob.nbytes - array.index_bytes
    return Blob(blob.file, start, array.index_bytes)


def array_info(
    array: Array, blobs: Mapping[str, Blob], indexes: Mapping[str, bytes], files: Mapping[str, int], uri: str
) -> TensorInfo:
    """Lay out the chunks of an array.

    Args:
        array: its metadata.
        blobs: the objects that are there, by key.
        indexes: the index of each of them that is a shard.
        files: index into the checkpoint's files, by address.
        uri: of the store, for messages.

    Raises:
        FormatError: a chunk is missing, or lies outside of its object.
    """
    elements = prod(array.shape)
    nbytes = DTYPES[array.dtype].nbytes(elements) or 0
    pieces: list[Piece] = []
    if array.dtype != "OTHER" and elements:
        for at, blob in _chunks(array, blobs, indexes, uri):
            for piece in _pieces(array, at, blob, files[blob.file.uri]):
                _append(pieces, piece)
    first = pieces[0] if pieces else Piece(0, 0, 0, 0)
    return TensorInfo(
        array.name, array.dtype, array.shape, first.file, first.offset, nbytes, tuple(pieces), _ordered(array)
    )


def _ordered(array: Array) -> bool:
    """Whether one chunk after the other is C order: chunks are whole rows, or parts of one row."""
    in_order = array.order == tuple(range(len(array.shape)))
    return in_order and _in_rows(array.chunk, array.shape) and _in_rows(array.grid, array.shape)


def _in_rows(chunk: Shape, shape: Shape) -> bool:
    cut = [i for i, (c, s) in enumerate(zip(chunk, shape, strict=True)) if c < s]
    last = max(cut, default=0)
    return all(c == 1 or s == 1 for c, s in zip(chunk[:last], shape[:last], strict=True))


def _append(pieces: list[Piece], piece: Piece) -> None:
    """Add a piece, as a part of the last where the two are one stretch of plain bytes."""
    if pieces:
        last = pieces[-1]
        touching = last.file == piece.file and last.offset + last.nbytes == piece.offset
        if last.plain and piece.plain and touching:
            pieces[-1] = Piece(
                last.file, last.offset, last.nbytes + piece.nbytes, last.elements + piece.elements
            )
            return
    pieces.append(piece)


def _chunks(
    array: Array, blobs: Mapping[str, Blob], indexes: Mapping[str, bytes], uri: str
) -> Iterator[tuple[Shape, Blob]]:
    """Every chunk that holds elements, with the index of its first element along each dimension."""
    for place, key in array.objects():
        corner = tuple(p * g for p, g in zip(place, array.grid, strict=True))
        blob = blobs.get(key)
        if blob is None:
            raise missing_chunk(array, key, uri)
        if not array.sharded:
            yield corner, blob
            continue
        table = _index(array, indexes[key], key, uri)
        for inner, (offset, nbytes) in zip(np.ndindex(*array.in_object), table, strict=True):
            at = tuple(o + i * c for o, i, c in zip(corner, inner, array.chunk, strict=True))
            if any(a >= s for a, s in zip(at, array.shape, strict=True)):
                continue
            if offset == _ABSENT:
                raise missing_chunk(array, f"{'/'.join(map(str, inner))} of {key}", uri)
            if offset + nbytes > blob.nbytes:
                raise FormatError(
                    f"a chunk of its shard {key} ends at byte {offset + nbytes:,} of {blob.nbytes:,}",
                    file=uri,
                    tensor=array.name,
                )
            yield at, Blob(blob.file, blob.offset + offset, nbytes)


def missing_chunk(array: Array, chunk: str, uri: str) -> FormatError:
    """Say that a chunk is missing."""
    return FormatError(
        f"its chunk {chunk} is missing (Zarr would read the fill value in its place; write_empty_chunks, or "
        "gaussmeter pack, writes a store with all its chunks)",
        file=uri,
        tensor=array.name,
    )


def _index(array: Array, data: bytes, key: str, uri: str) -> list[tuple[int, int]]:
    """Offset and length of each chunk of a shard."""
    body = data
    if array.checked:
        from google_crc32c import value

        body = data[:-_CHECKSUM_BYTES]
        if value(body) != int.from_bytes(data[-_CHECKSUM_BYTES:], "little"):
            raise FormatError(f"the index of its shard {key} is damaged", file=uri, tensor=array.name)
    flat = np.frombuffer(body, "<u8").tolist()
    return list(zip(flat[::2], flat[1::2], strict=True))


def _pieces(array: Array, at: Shape, blob: Blob, file: int) -> tuple[Piece, ...]:
    """The elements of one chunk that lie within the array: chunks at its edges are padded."""
    valid = tuple(min(c, s - a) for c, s, a in zip(array.chunk, array.shape, at, strict=True))
    strides, elements = _strides(array), prod(valid)
    memory = prod(array.chunk) * array.item
    in_rows = _ordered(array) and is_row_major(valid, strides)
    steps = c_strides(array.shape)
    place = View(sum(a * s for a, s in zip(at, steps, strict=True)), valid, steps)
    if array.codecs and memory > MOST_CHUNK_BYTES:
        message = f"its chunks of {memory:,} bytes are too large to be decompressed in memory"
        raise FormatError(message, file=blob.file.uri, tensor=array.name)
    if not array.codecs and blob.nbytes != memory:
        message = f"a chunk of it has {blob.nbytes:,} bytes, expected {memory:,}"
        raise FormatError(message, file=blob.file.uri, tensor=array.name)
    if not array.codecs and in_rows:
        return (Piece(file, blob.offset, elements * array.item, elements),)
    if not array.codecs:
        return view_pieces(file, blob.offset, array.item, valid, strides, place)
    view = None
    if in_rows and elements != prod(array.chunk):
        view = View(0, (elements,), (1,))
    elif not in_rows:
        view = View(0, valid, strides)
    kept = None if in_rows else place
    return (Piece(file, blob.offset, blob.nbytes, elements, array.codecs, memory, view, kept),)


def _strides(array: Array) -> Shape:
    """Elements from one index to the next along each dimension of a stored chunk."""
    strides = [0] * len(array.chunk)
    step = 1
    for dimension in reversed(array.order):
        strides[dimension] = step
        step *= array.chunk[dimension]
    return tuple(strides)
