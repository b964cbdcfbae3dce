"""Zarr stores as zarr itself writes them, and what is done to them afterwards."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

import engine
from engine.errors import FormatError
from engine.formats.zarr.array import LOGICAL
from engine.nouns.dtypes import DTYPES
from engine.sketch import observe
from tests.builders import raw, write
from tests.integration.helpers import assert_consistent, made
from tests.torch_files import Bins, bins_in, bins_of

COMPRESSORS: dict[str, Any] = {
    "none": None, "default": "auto", "zstd": ZstdCodec(level=1), "zstd checked": ZstdCodec(checksum=True),
    "gzip": GzipCodec(), "blosc": BloscCodec(cname="lz4", shuffle="bitshuffle"), "crc32c": Crc32cCodec(),
    "zstd and crc32c": [ZstdCodec(), Crc32cCodec()], "crc32c and gzip": [Crc32cCodec(), GzipCodec()],
}  # fmt: skip

LOGICAL_NAMES = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


def noise(*shape: int, dtype: str = "<f4", seed: int = 0) -> NDArray[Any]:
    """Random bits, NaN and infinities among them; booleans are booleans."""
    bits = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    if np.dtype(dtype) == bool:
        bits = bytes(b & 1 for b in bits)
    return np.frombuffer(bits, dtype).reshape(shape)


def put(group: Any, path: str, data: NDArray[Any], **options: Any) -> None:
    """Write an array with all its chunks, also those of zeros."""
    how = {"compressors": None, "config": {"write_empty_chunks": True}, "chunks": data.shape} | options
    if not all(how["chunks"]):
        how["chunks"] = tuple(max(c, 1) for c in how["chunks"])
    array = group.create_array(path, shape=data.shape, dtype=data.dtype, **how)
    array[...] = data


def store(
    folder: Path, arrays: Mapping[str, NDArray[Any]], *, consolidated: bool = False, **options: Any
) -> Path:
    """A group with these arrays, each with the same options."""
    group = zarr.create_group(folder, zarr_format=3)
    for path, data in arrays.items():
        put(group, path, data, **options)
    if consolidated:
        consolidate(folder)
    return folder


def consolidate(folder: Path) -> None:
    with warnings.catch_warnings():  # it is no part of the specification yet
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder)


def sharding(
    chunk: tuple[int, ...], *inner: Any, last: tuple[Any, ...] = (), **options: Any
) -> dict[str, Any]:
    """Options of an array in shards, with what `shards=` does not let one choose."""
    codecs = (*inner, BytesCodec(), *last)
    return {"serializer": ShardingCodec(chunk_shape=chunk, codecs=codecs, **options)}


def transposed(*order: int) -> dict[str, Any]:
    return {"filters": [TransposeCodec(order=order)]}


def logical(dtype: str, **more: Any) -> dict[str, Any]:
    return {"attributes": {LOGICAL: LOGICAL_NAMES[dtype]} | more}


def archive(folder: Path, path: Path, compression: int = zipfile.ZIP_STORED, *, below: str = "") -> Path:
    with zipfile.ZipFile(path, "w", compression) as out:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            out.write(file, below + file.relative_to(folder).as_posix())
    return path


NATIVE = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL", "complex64": "C64",
    "complex128": "C128", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8",
    "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip


@st.composite
def written(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], str]:
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    dtype = draw(st.sampled_from(["F32", "F16", "F64", "BF16", "F8_E4M3"]))
    numpy = {"BF16": "<u2", "F8_E4M3": "u1"}.get(dtype, {v: k for k, v in NATIVE.items()}.get(dtype))
    how: dict[str, Any] = {"compressors": COMPRESSORS[draw(st.sampled_from(list(COMPRESSORS)))]}
    how["chunks"] = chunk = tuple(draw(st.integers(1, 10)) for _ in shape)
    if shape and draw(st.booleans()):
        how["shards"] = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    if shape and draw(st.booleans()):
        how["filters"] = [TransposeCodec(order=tuple(draw(st.permutations(range(len(shape))))))]
    data = noise(*shape, dtype=str(numpy), seed=draw(st.integers(0, 99)))
    return data, how | (logical(dtype) if dtype in LOGICAL_NAMES else {}), dtype


# Damage


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], node: str = "w") -> Path:
    """Change the metadata of a node; what `change` returns is written in its place."""
    path = folder / node / "zarr.json"
    document = json.loads(path.read_text())
    found = change(document)
    write(path, json.dumps(document if found is None else found).encode())
    return folder


def setting(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        del document[key]

    return change


def refusal(place: Path, **how: Any) -> str:
    """The sentence with which a scan is refused, without the store that it begins with."""
    with pytest.raises(FormatError) as caught:
        engine.scan(place, warehouse=made(place.parent / "refused.duckdb"), **({"workers": 1} | how))
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert len(text.splitlines()) == 1, text
    assert text.isprintable(), text
    assert text.startswith(str(place)), text
    return text.removeprefix(str(place))


def tensor_refusal(place: Path, name: str = "w", **how: Any) -> str:
    """The same for something wrong with one tensor, which it names."""
    text = refusal(place, **how)
    assert f": tensor {name!r}: " in text, text
    return text


SMALL = noise(6, 8)
CHUNKS = {"chunks": (3, 4)}
SHARDS = {"chunks": (3, 4), "shards": (6, 4)}


class Chunked:
    """Makes small stores of one array `w`, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()

    def __call__(self, compressor: str = "none", how: dict[str, Any] = CHUNKS, data: Any = SMALL) -> Path:
        place = self._folder / f"s{next(self._numbers)}"
        return store(place, {"w": data}, compressors=COMPRESSORS[compressor], **how)


def chunk(place: Path, key: str = "0/1") -> Path:
    return place / "w" / "c" / key


# What should come out


def expected(data: NDArray[Any], dtype: str) -> Bins:
    return bins_of(observe(raw(data), DTYPES[dtype]))


def scanned(place: Path, **how: Any) -> dict[str, Bins]:
    warehouse = made(place.parent / "w.duckdb")
    engine.scan(place, warehouse=warehouse, **({"workers": 1} | how))
    assert_consistent(warehouse)
    return bins_in(warehouse)
