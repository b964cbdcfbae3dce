"""Writing a Zarr version 3 group, one array a tensor, by shards that any worker can write.

zarr does the writing and the reading back; this module decides the layout. A shard is a stretch of the tensor
in C order, so that a shard of a packed tensor is one byte range of the source, and a chunk one of the shard.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.formats.zarr_array import LOGICAL, MARK, TENSOR_NAME
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Span, TensorInfo
from engine.storage.stores import open_store
from engine.storage.uris import BUCKETS, scheme_of

CHUNK_BYTES = 4 << 20
CHUNKS_PER_SHARD = 4
CODECS = ("none", "zstd")

_PLAIN_NAME = re.compile(r"(?!__|\.)[A-Za-z0-9_.\-]{1,200}")
_NUMPY = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool", "C64": "complex64",
    "C128": "complex128",
    **{f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_LOGICAL = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor is cut.

    Attributes:
        shape: of the tensor.
        cut: the dimension along which it is cut; those before it are cut into single indices.
        chunk: how many indices of that dimension a chunk has.
        shard: how many a shard has, a multiple.
    """

    shape: tuple[int, ...]
    cut: int
    chunk: int
    shard: int

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return self._of(self.chunk)

    @property
    def shard_shape(self) -> tuple[int, ...]:
        """Shape of a shard."""
        return self._of(self.shard)

    def _of(self, count: int) -> tuple[int, ...]:
        rest = tuple(max(1, s) for s in self.shape[self.cut + 1 :])
        return (1,) * self.cut + (count,) + rest if self.shape else ()

    def spans(self) -> Iterator[Span]:
        """The elements of each shard, in C order."""
        if not self.shape:
            yield 0, 1
            return
        inner = prod(self.shape[self.cut + 1 :])
        for outer in range(prod(self.shape[: self.cut])):
            for first in range(0, self.shape[self.cut], self.shard):
                last = min(first + self.shard, self.shape[self.cut])
                begin = outer * self.shape[self.cut]
                yield (begin + first) * inner, (begin + last) * inner

    def region(self, span: Span) -> tuple[int | slice, ...]:
        """Where the elements of a shard are in the array."""
        if not self.shape:
            return ()
        inner = prod(self.shape[self.cut + 1 :])
        outer, first = divmod(span[0] // inner, self.shape[self.cut])
        last = first + (span[1] - span[0]) // inner
        lead = np.unravel_index(outer, self.shape[: self.cut]) if self.cut else ()
        return (*map(int, lead), slice(first, last))


def layout_of(shape: tuple[int, ...], item: int) -> Layout:
    """Cut a tensor into chunks of about 4 MiB that are stretches of it, and shards of a few chunks."""
    if not shape:
        return Layout((), 0, 1, 1)
    cut = 0
    while cut < len(shape) - 1 and prod(shape[cut + 1 :]) * item > CHUNK_BYTES:
        cut += 1
    row = max(1, prod(shape[cut + 1 :])) * item
    length = max(1, shape[cut])
    chunk = min(max(1, CHUNK_BYTES // row), length)
    shard = chunk * min(CHUNKS_PER_SHARD, -(-length // chunk))
    return Layout(shape, cut, chunk, shard)


def stored_form(tensor: TensorInfo) -> tuple[str, tuple[int, ...], int] | None:
    """How a tensor is stored: dtype of numpy, shape and bytes an element; None when there is no way."""
    bits = DTYPES[tensor.dtype].bits
    if tensor.dtype in _NUMPY:
        return _NUMPY[tensor.dtype], tensor.shape, bits // 8
    if tensor.dtype in _LOGICAL:
        return f"uint{bits}", tensor.shape, bits // 8
    return None


class GroupWriter:
    """A Zarr group that is being written.

    Args:
        uri: a directory that may not exist yet, or an address in a bucket.
        codec: `none` or `zstd`.
    """

    def __init__(self, uri: str, codec: str) -> None:
        self.uri, self.codec = uri, codec
        self._arrays: dict[str, Any] = {}

    def begin(self, mark: Mapping[str, Any]) -> dict[str, Any]:
        """Open the group, or make it.

        Args:
            mark: where its tensors come from.

        Returns:
            the mark that it had: the same but for its status.

        Raises:
            ConfigError: something else is there.
        """
        import zarr

        store = self._store()
        try:
            group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        except (FileNotFoundError, zarr.errors.GroupNotFoundError):
            group = None
        if group is None:
            if self._occupied():
                raise ConfigError("is there already, and is no Zarr group", file=self.uri)
            zarr.create_group(store, attributes={MARK: dict(mark)}, zarr_format=3)
            return dict(mark)
        found = dict(group.attrs).get(MARK)
        if not isinstance(found, dict):
            raise ConfigError("is a Zarr group that was not packed by gaussmeter", file=self.uri)
        for key in ("fingerprint", "codec"):
            if found.get(key) != mark[key]:
                raise ConfigError(
                    f"holds a pack of {found.get('source')} with another {key}: choose another place",
                    file=self.uri,
                )
        return found

    def _occupied(self) -> bool:
        from pathlib import Path

        if scheme_of(self.uri) != "file":
            return False
        path = Path(self.uri)
        return path.is_file() or (path.is_dir() and any(path.iterdir()))

    def done(self) -> dict[str, str]:
        """Digest of each array that is whole, by the name of its tensor."""
        import zarr

        group = zarr.open_group(self._store(), mode="r", zarr_format=3, use_consolidated=False)
        marks = {}
        for path, array in group.arrays():
            mark = array.attrs.get(MARK)
            if isinstance(mark, dict) and mark.get("digest"):
                marks[str(array.attrs.get(TENSOR_NAME, path))] = str(mark["digest"])
        return marks

    def create(self, ordinal: int, tensor: TensorInfo) -> None:
        """Make the array of a tensor, in place of what was left of it."""
        import zarr
        from zarr.codecs import ZstdCodec

        form = stored_form(tensor)
        assert form is not None
        dtype, shape, item = form
        layout = layout_of(shape, item)
        path = array_path(ordinal, tensor.name)
        attributes: dict[str, Any] = {}
        if tensor.dtype in _LOGICAL:
            attributes[LOGICAL] = _LOGICAL[tensor.dtype]
        if path != tensor.name:
            attributes[TENSOR_NAME] = tensor.name
        codec = ZstdCodec(level=3) if self.codec == "zstd" else None
        zarr.create_array(
            self._store(), name=path, shape=shape, dtype=dtype, chunks=layout.chunk_shape,
            shards=layout.shard_shape if shape else None, compressors=codec, attributes=attributes,
            overwrite=True, config={"write_empty_chunks": True}, zarr_format=3, fill_value=0,
        )  # fmt: skip

    def write(self, ordinal: int, tensor: TensorInfo, span: Span, data: NDArray[np.uint8]) -> None:
        """Write a shard.

        Args:
            ordinal: of the tensor.
            tensor: whose elements they are.
            span: which of them, as `Layout.spans` cuts it.
            data: (n,) uint8, their bytes.
        """
        array, layout = self._open(ordinal, tensor)
        region = layout.region(span)
        array[region if region else ...] = data.view(array.dtype).reshape(_shape(layout, region))

    def read(self, ordinal: int, tensor: TensorInfo, span: Span) -> NDArray[np.uint8]:
        """Read a shard back; (n,) uint8."""
        array, layout = self._open(ordinal, tensor)
        region = layout.region(span)
        found = np.ascontiguousarray(array[region if region else ...])
        return found.reshape(-1).view(np.uint8)

    def _open(self, ordinal: int, tensor: TensorInfo) -> tuple[Any, Layout]:
        import zarr

        path = array_path(ordinal, tensor.name)
        if path not in self._arrays:
            array = zarr.open_array(self._store(), path=path, mode="r+", zarr_format=3)
            self._arrays[path] = array.with_config({"write_empty_chunks": True})
        form = stored_form(tensor)
        assert form is not None
        return self._arrays[path], layout_of(form[1], form[2])

    def mark(self, ordinal: int, tensor: TensorInfo, digest: str) -> None:
        """Say that an array is whole."""
        array, _ = self._open(ordinal, tensor)
        array.update_attributes({MARK: {"digest": digest}})

    def finish(self, mark: Mapping[str, Any]) -> None:
        """Say that the group is whole, and gather the metadata of all arrays in its own."""
        import zarr

        group = zarr.open_group(self._store(), mode="r+", zarr_format=3, use_consolidated=False)
        group.update_attributes({MARK: dict(mark)})
        with (
            warnings.catch_warnings()
        ):  # it is no part of the specification yet; readers without it list the arrays
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(self._store())

    def _store(self) -> Any:
        from zarr.storage import LocalStore, ObjectStore

        if scheme_of(self.uri) == "file":
            return LocalStore(self.uri)
        if scheme_of(self.uri) not in BUCKETS:
            raise ConfigError("can be written to a directory or a bucket", file=self.uri)
        return ObjectStore(open_store(self.uri.rstrip("/")))


def array_path(ordinal: int, name: str) -> str:
    """The path of a tensor's array: its name where that can be one."""
    return name if _PLAIN_NAME.fullmatch(name) and name != "zarr.json" else f"tensor-{ordinal:05d}"


def _shape(layout: Layout, region: tuple[int | slice, ...]) -> tuple[int, ...]:
    if not region:
        return layout.shape
    last = region[-1]
    assert isinstance(last, slice)
    return (last.stop - last.start, *layout.shape[layout.cut + 1 :])
