"""Writing a Zarr version 3 group, one array a tensor, by shards that any worker can write.

zarr does the writing and the reading back; `engine.formats.zarr.layout` decides what goes where.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, TaskError
from engine.formats.zarr.array import LOGICAL, MARK, TENSOR_NAME
from engine.formats.zarr.layout import LOGICAL_OF, Layout, array_path, layout_of, shape_of, stored_form
from engine.nouns.records import Span, TensorInfo
from engine.storage.remote import one_line, store_errors
from engine.storage.stores import open_store
from engine.storage.uris import BUCKETS, scheme_of

CODECS = ("none", "zstd")
_UNFINISHED = ".partial"  # what zarr calls a file that it is writing
Words = ParamSpec("Words")
Result = TypeVar("Result")


def _spoken(
    method: Callable[Concatenate[GroupWriter, Words], Result],
) -> Callable[Concatenate[GroupWriter, Words], Result]:
    """Say in one sentence what went wrong in a store."""

    @wraps(method)
    def safe(self: GroupWriter, /, *words: Words.args, **named: Words.kwargs) -> Result:
        failures: tuple[type[Exception], ...] = (*store_errors(), ValueError, KeyError)
        try:
            return method(self, *words, **named)
        except failures as error:
            what = getattr(error, "strerror", None) or one_line(error)
            raise TaskError(f"could not be written: {what}", file=self.uri) from error

    return safe


class GroupWriter:
    """A Zarr group that is being written.

    Args:
        uri: a directory that may not exist yet, or an address in a bucket.
        codec: `none` or `zstd`.
    """

    def __init__(self, uri: str, codec: str) -> None:
        self.uri, self.codec = uri, codec
        self._arrays: dict[str, Any] = {}

    @_spoken
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

        self._check_place()
        store = self._store()
        try:
            group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        except (FileNotFoundError, zarr.errors.GroupNotFoundError):
            group = None
        except (zarr.errors.BaseZarrError, ValueError, KeyError, TypeError) as error:
            raise ConfigError("is there already, and is no Zarr group", file=self.uri) from error
        if group is None:
            if self._occupied():
                raise ConfigError("is there already, and is no Zarr group", file=self.uri)
            zarr.create_group(store, attributes={MARK: dict(mark)}, zarr_format=3)
            return dict(mark)
        found = dict(group.attrs).get(MARK)
        if not isinstance(found, dict) or "status" not in found:
            raise ConfigError("is a Zarr group that was not packed by gaussmeter", file=self.uri)
        for key in ("fingerprint", "codec"):
            if found.get(key) != mark[key]:
                raise ConfigError(
                    f"holds a pack of {found.get('source')} with another {key}: choose another place",
                    file=self.uri,
                )
        return found

    def _check_place(self) -> None:
        """Refuse what can be no directory."""
        path = Path(self.uri)
        if scheme_of(self.uri) == "file" and (path.exists() or path.is_symlink()) and not path.is_dir():
            raise ConfigError("is there already, and is no directory", file=self.uri)

    def _occupied(self) -> bool:
        """Whether somebody else's files are there; those that zarr was writing are ours."""
        path = Path(self.uri)
        if scheme_of(self.uri) != "file" or not path.is_dir():
            return False
        return any(not p.name.endswith(_UNFINISHED) for p in path.iterdir())

    @_spoken
    def done(self) -> dict[str, str]:
        """Digest of each array that is whole, by the name of its tensor."""
        import zarr

        marks = {}
        with warnings.catch_warnings():  # of what was left of an array, which will be written anew
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            group = zarr.open_group(self._store(), mode="r", zarr_format=3, use_consolidated=False)
            for path, array in group.arrays():
                mark = array.attrs.get(MARK)
                if isinstance(mark, dict) and mark.get("digest"):
                    marks[str(array.attrs.get(TENSOR_NAME, path))] = str(mark["digest"])
        return marks

    @_spoken
    def is_consolidated(self) -> bool:
        """Whether the metadata of all arrays is in the group's own."""
        import zarr

        group = zarr.open_group(self._store(), mode="r", zarr_format=3)
        return group.metadata.consolidated_metadata is not None

    @_spoken
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
        if tensor.dtype in LOGICAL_OF:
            attributes[LOGICAL] = LOGICAL_OF[tensor.dtype]
        if path != tensor.name:
            attributes[TENSOR_NAME] = tensor.name
        codec = ZstdCodec(level=3, checksum=True) if self.codec == "zstd" else None
        zarr.create_array(
            self._store(), name=path, shape=shape, dtype=dtype, chunks=layout.chunk_shape,
            shards=layout.shard_shape if shape else None, compressors=codec, attributes=attributes,
            overwrite=True, config={"write_empty_chunks": True}, zarr_format=3, fill_value=0,
        )  # fmt: skip

    @_spoken
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
        array[region if region else ...] = data.view(array.dtype).reshape(shape_of(layout, region))

    @_spoken
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

    @_spoken
    def mark(self, ordinal: int, tensor: TensorInfo, digest: str) -> None:
        """Say that an array is whole."""
        array, _ = self._open(ordinal, tensor)
        array.update_attributes({MARK: {"digest": digest}})

    @_spoken
    def finish(self, mark: Mapping[str, Any]) -> None:
        """Say that the group is whole, and gather the metadata of all arrays in its own."""
        import zarr

        group = zarr.open_group(self._store(), mode="r+", zarr_format=3, use_consolidated=False)
        group.update_attributes({MARK: dict(mark)})
        with warnings.catch_warnings():  # no part of the specification yet: others list the arrays
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(self._store())
        if scheme_of(self.uri) == "file":
            for path in Path(self.uri).rglob(f"*{_UNFINISHED}"):
                path.unlink()

    def _store(self) -> Any:
        from zarr.storage import LocalStore, ObjectStore

        if scheme_of(self.uri) == "file":
            return LocalStore(self.uri)
        if scheme_of(self.uri) not in BUCKETS:
            raise ConfigError("can be written to a directory or a bucket", file=self.uri)
        return ObjectStore(open_store(self.uri.rstrip("/"), repeating=True))
