"""A torch file: a zip archive of a pickle that describes tensors, and of their storages as plain bytes.

Source: torch/serialization.py and caffe2/serialize/inline_container.cc of PyTorch. Nothing in the file is
run, see `engine.formats.torch.vocabulary`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from engine.errors import FormatError
from engine.formats.header import Header
from engine.formats.marks import ZIP_MAGIC
from engine.formats.strided import c_strides, extent, is_dense, is_row_major, view_pieces
from engine.formats.torch.state_dict import Named, find_weights
from engine.formats.torch.vocabulary import MAX_PICKLE_BYTES, Storage, Tensor, load
from engine.formats.zip_directory import Member, read_directory
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import TensorInfo, View
from engine.storage import Reader, open_reader, read_bytes

_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the long that torch wrote before 1.6
_MOST_REPEATED = 1 << 34
_SCRIPTED = {"constants.pkl": "holds a scripted program, not weights"}


@dataclass(frozen=True, slots=True)
class Archive:
    """A torch archive, opened.

    Attributes:
        uri: of the file, for messages.
        saved: what was pickled, with stand-ins for tensors.
        storages: the members that hold storages, by their key.
        digest: hexadecimal SHA-256 of the pickle and of the places of the storages.
    """

    uri: str
    saved: Any
    storages: dict[str, Member]
    digest: str


def read_torch(uri: str) -> Header:
    """Read and check what a torch file says of its tensors.

    Raises:
        FormatError: it is damaged, compressed, of the old kind, or asks for anything but weights.
    """
    with open_reader(uri) as reader:
        file = reader.describe()
        archive = open_archive(reader, uri, 0, file.size)
    try:
        named = find_weights(archive.saved)
    except ValueError as error:
        raise FormatError(str(error), file=uri) from error
    tensors = with_aliases([(n, n.standing(tensor_info(n.name, n.tensor, archive))) for n in named])
    tensors.sort(key=lambda t: (t.offset, t.name))
    return Header(file, tuple(tensors), archive.digest)


def open_archive(reader: Reader, uri: str, start: int, length: int) -> Archive:
    """Read the directory and the pickle of an archive that may lie within a larger file.

    Raises:
        FormatError: as for `read_torch`.
    """
    _check_kind(reader, uri, start, length)
    members = read_directory(reader, uri, start, length, _SCRIPTED)
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise FormatError("has no data.pkl: it is no torch file", file=uri)
    root = pickles[0].removesuffix("data.pkl")
    _check_byte_order(reader, members.get(f"{root}byteorder"), uri)
    if any(name.startswith(f"{root}code/") for name in members):
        raise FormatError("holds a scripted program, not weights", file=uri)
    member = members[pickles[0]]
    if member.nbytes > MAX_PICKLE_BYTES:
        raise FormatError(f"its pickle has {member.nbytes:,} bytes, over the limit", file=uri)
    data = read_bytes(reader, member.offset, member.nbytes)
    storages = {n.removeprefix(f"{root}data/"): m for n, m in members.items() if n.startswith(f"{root}data/")}
    places = repr(sorted((k, m.offset, m.nbytes) for k, m in storages.items())).encode()
    return Archive(uri, load(data, uri), storages, hashlib.sha256(data + b"\0" + places).hexdigest())


def _check_kind(reader: Reader, uri: str, start: int, length: int) -> None:
    magic = read_bytes(reader, start, min(length, 32))
    if magic[:4] == ZIP_MAGIC:
        return
    if _LEGACY_MAGIC in magic:
        raise FormatError(
            "was written by torch before 1.6, as one pickle after another: load it with "
            "torch.load(..., weights_only=True) and save it again",
            file=uri,
        )
    raise FormatError("is no torch file: it does not begin as a zip archive", file=uri)


def _check_byte_order(reader: Reader, member: Member | None, uri: str) -> None:
    if member is None:
        return
    order = read_bytes(reader, member.offset, min(member.nbytes, 16))
    if order != b"little":
        raise FormatError(f"its numbers are {order!r} endian, expected little", file=uri)


def tensor_info(name: str, tensor: Tensor, archive: Archive, at: View | None = None) -> TensorInfo:
    """Find the bytes of a tensor.

    Args:
        name: its name.
        tensor: the stand-in.
        archive: that it lies in.
        at: which elements of a larger tensor they are; None for a whole one.

    Raises:
        FormatError: its storage is missing, or shorter than the tensor, or than it should be.
    """
    dtype = DTYPES[tensor.dtype]
    nbytes = dtype.nbytes(prod(_logical(tensor))) or 0
    if tensor.storage is None:
        return TensorInfo(name, tensor.dtype, tensor.shape, 0, 0, nbytes, reason=tensor.reason)
    member = _storage(tensor.storage, archive, name)
    item = dtype.bits // 8 or 1
    end = tensor.start + extent(tensor.shape, tensor.strides)
    declared = DTYPES[tensor.storage.dtype].nbytes(tensor.storage.elements) or 0
    if end * item > min(declared, member.nbytes):
        raise FormatError(
            f"needs {end * item:,} bytes of its storage, which has {min(declared, member.nbytes):,}",
            file=archive.uri,
            tensor=name,
        )
    offset = member.offset + tensor.start * item
    info = TensorInfo(name, tensor.dtype, _logical(tensor), 0, offset, nbytes, reason=tensor.reason)
    if at is None and is_row_major(tensor.shape, tensor.strides):
        return info
    if info.elements > max(_MOST_REPEATED, member.nbytes):
        return replace(info, reason=f"repeats the {member.nbytes // item:,} elements of its storage")
    at = at or View(0, tensor.shape, c_strides(tensor.shape))
    pieces = view_pieces(0, offset, item, tensor.shape, tensor.strides, at)
    return replace(info, pieces=pieces, ordered=not pieces)


def _logical(tensor: Tensor) -> tuple[int, ...]:
    """Shape in elements: torch counts two packed floats of 4 bits as one."""
    if tensor.dtype == "F4" and tensor.shape:
        return (*tensor.shape[:-1], 2 * tensor.shape[-1])
    return tensor.shape


def _storage(storage: Storage, archive: Archive, name: str) -> Member:
    member = archive.storages.get(storage.key)
    if member is None:
        raise FormatError(f"its storage {storage.key!r} is not in the archive", file=archive.uri, tensor=name)
    declared = DTYPES[storage.dtype].nbytes(storage.elements) or 0
    if declared > member.nbytes:
        message = f"its storage declares {declared:,} bytes and has {member.nbytes:,}"
        raise FormatError(message, file=archive.uri, tensor=name)
    return member


def with_aliases(tensors: Iterable[tuple[Named, TensorInfo]]) -> list[TensorInfo]:
    """Count every storage once: tensors of the same elements are aliases of the first of them."""
    first: dict[tuple[Any, ...], str] = {}
    result = []
    for named, info in tensors:
        key = _identity(named.tensor, info)
        if info.coding is None or not info.elements or key is None:
            result.append(info)
        elif key in first:
            result.append(replace(info, alias_of=first[key]))
        else:
            first[key] = info.name
            result.append(info)
    return result


def _identity(tensor: Tensor, info: TensorInfo) -> tuple[Any, ...] | None:
    """Two tensors of one identity hold the same elements, perhaps in another order."""
    if tensor.storage is None:
        return None
    if is_dense(tensor.shape, tensor.strides):
        return tensor.storage.key, tensor.start, info.elements, info.dtype
    return tensor.storage.key, tensor.start, tensor.shape, tensor.strides, info.dtype
