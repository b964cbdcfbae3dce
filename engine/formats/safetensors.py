"""One safetensors file: eight bytes of length, a JSON header, and the tensors side by side.

Source: the format's description in huggingface/safetensors, whose own checks are all made here too.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import Any

from engine.errors import FormatError
from engine.formats.header import Header
from engine.formats.strict_json import parse_object
from engine.nouns.dtypes import SAFETENSORS
from engine.nouns.records import SourceFile, TensorInfo
from engine.storage import Reader, open_reader, read_bytes

MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


def read_header(uri: str) -> Header:
    """Read and check the header of one file.

    Raises:
        FormatError: anything in it is missing, malformed, contradictory or unknown.
    """
    with open_reader(uri) as reader:
        file = reader.describe()
        raw = _header_bytes(reader, file)
    entries = parse_object(raw, file=uri, what="the header")
    _check_metadata(entries.pop("__metadata__", {}), uri)
    data_start = _LENGTH_BYTES + len(raw)
    tensors = sorted(
        (_tensor(name, entry, data_start, uri) for name, entry in entries.items()), key=_position
    )
    _check_cover(tensors, data_start, file)
    return Header(file, tuple(tensors), hashlib.sha256(raw).hexdigest())


def _header_bytes(reader: Reader, file: SourceFile) -> bytes:
    if file.size < _LENGTH_BYTES:
        raise FormatError(f"has {file.size} bytes, too few for a safetensors header", file=file.uri)
    length = int.from_bytes(read_bytes(reader, 0, _LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise FormatError(
            f"claims a header of {length:,} bytes, over the limit of {MAX_HEADER_BYTES:,}", file=file.uri
        )
    if _LENGTH_BYTES + length > file.size:
        raise FormatError(
            f"claims a header of {length:,} bytes, but the file has {file.size:,}", file=file.uri
        )
    return read_bytes(reader, _LENGTH_BYTES, length)


def _check_metadata(metadata: Any, uri: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("__metadata__ is not an object of strings", file=uri)


def _position(tensor: TensorInfo) -> tuple[int, int]:
    return tensor.offset, tensor.offset + tensor.nbytes


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tensor(name: str, entry: Any, data_start: int, uri: str) -> TensorInfo:
    def refuse(message: str) -> FormatError:
        return FormatError(message, file=uri, tensor=name)

    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise refuse("its entry must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SAFETENSORS:
        raise refuse(f"unknown dtype {str(dtype)[:60]!r}; known are {', '.join(SAFETENSORS)}")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise refuse(f"shape {str(shape)[:60]} is not a list of whole numbers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise refuse(f"data_offsets {str(offsets)[:60]} is not a pair of whole numbers")
    start, stop = offsets
    if stop < start:
        raise refuse(f"data_offsets are reversed: {start} to {stop}")
    if prod(size for size in shape if size) * SAFETENSORS[dtype].bits >= 1 << 64:
        raise refuse(f"shape {str(shape)[:60]} overflows 64 bits")
    elements = prod(shape)
    expected = SAFETENSORS[dtype].nbytes(elements)
    if expected is None:
        raise refuse(f"{elements:,} elements of {dtype} do not fill whole bytes")
    if expected != stop - start:
        takes = f"{dtype} of shape {str(shape)[:60]} takes {expected:,} bytes"
        raise refuse(f"{takes}, but data_offsets span {stop - start:,}")
    return TensorInfo(name, dtype, tuple(shape), 0, data_start + start, stop - start)


def _check_cover(tensors: list[TensorInfo], data_start: int, file: SourceFile) -> None:
    """Every byte behind the header must belong to exactly one tensor."""
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            relation = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole before it"
            numbers = f"it starts at {tensor.offset - data_start:,}, expected {end - data_start:,}"
            raise FormatError(f"{relation}: {numbers}", file=file.uri, tensor=tensor.name)
        end += tensor.nbytes
    if end != file.size:
        state = "truncated" if end > file.size else "too long"
        raise FormatError(f"is {state}: {file.size:,} bytes, the header describes {end:,}", file=file.uri)
