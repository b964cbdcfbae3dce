"""A Zarr version 3 group as a checkpoint, one array a tensor."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from engine.errors import FormatError
from engine.formats.strict_json import parse_object
from engine.formats.zarr_array import MARK, Array, array_info, index_blob, read_array
from engine.formats.zarr_objects import ROOT, Blob, Objects, read_all
from engine.nouns.records import SourceFile, TensorInfo


def read_group(objects: Objects) -> tuple[tuple[SourceFile, ...], tuple[TensorInfo, ...], str]:
    """Read the metadata of all arrays and the indexes of all shards.

    Returns:
        the files that hold chunks, the tensors, and a digest of what was read.

    Raises:
        FormatError: something is missing, damaged, or of a kind that cannot be read.
    """
    documents = _documents(objects)
    mark = _mark(documents[""])
    if mark.get("status") == "packing":
        raise FormatError("is a pack that was not finished: run gaussmeter pack again", file=objects.uri)
    arrays = [
        read_array(path, document, objects.uri)
        for path, document in sorted(documents.items())
        if document.get("node_type") == "array"
    ]
    _check_names(arrays, objects.uri)
    blobs = objects.find([key for a in arrays for key in a.keys.values()])
    indexes = _indexes(arrays, blobs, objects.uri)
    files = tuple({b.file.uri: b.file for b in blobs.values()}.values())
    numbers = {f.uri: i for i, f in enumerate(files)}
    found = [array_info(a, blobs, indexes, numbers, objects.uri) for a in arrays]
    tensors = (*found, *_aliases(mark, found, objects.uri))
    digest = hashlib.sha256(repr(sorted(documents.items())).encode())
    for key in sorted(indexes):
        digest.update(indexes[key])
    return files, tensors, digest.hexdigest()


def _mark(root: dict[str, Any]) -> dict[str, Any]:
    """What `gaussmeter pack` has noted of the group; nothing for a group of others."""
    mark = (root.get("attributes") or {}).get(MARK)
    return mark if isinstance(mark, dict) else {}


def _aliases(mark: dict[str, Any], found: list[TensorInfo], uri: str) -> list[TensorInfo]:
    """The tied tensors that `gaussmeter pack` has noted instead of writing them twice."""
    stored = {t.name: t for t in found}
    aliases = []
    for name, note in (mark.get("aliases") or {}).items():
        of = stored.get(str(note.get("of")))
        if of is None or name in stored:
            raise FormatError(f"is noted as an alias of {note.get('of')!r}", file=uri, tensor=name)
        shape = tuple(int(s) for s in note.get("shape", of.shape))
        aliases.append(replace(of, name=name, shape=shape, pieces=(), alias_of=of.name))
    return aliases


def _check_names(arrays: list[Array], uri: str) -> None:
    seen: dict[str, str] = {}
    for array in arrays:
        if array.name in seen:
            raise FormatError(
                f"is the name of two arrays, {seen[array.name]!r} and {array.path!r}",
                file=uri,
                tensor=array.name,
            )
        seen[array.name] = array.path


def _documents(objects: Objects) -> dict[str, dict[str, Any]]:
    """Every zarr.json by the path of its node: from the root's summary when it is complete."""
    root = objects.find([ROOT])
    if ROOT not in root:
        raise FormatError(f"has no {ROOT}: it is no Zarr version 3 store", file=objects.uri)
    document = _parse(read_all([root[ROOT]])[0], ROOT, objects.uri)
    if document.get("zarr_format") != 3:
        raise FormatError(f"has Zarr format {document.get('zarr_format')}, expected 3", file=objects.uri)
    consolidated = (document.get("consolidated_metadata") or {}).get("metadata") or {}
    keys = objects.keys()
    if keys is None:
        if document.get("node_type") == "group" and not consolidated:
            raise FormatError(
                "its arrays cannot be listed, and it has no consolidated metadata", file=objects.uri
            )
        return {"": document, **consolidated}
    nodes = [k for k in keys if k.endswith(f"/{ROOT}")]
    if {k.removesuffix(f"/{ROOT}") for k in nodes} == set(consolidated):
        return {"": document, **consolidated}
    found = objects.find(nodes)
    texts = read_all([found[k] for k in nodes])
    parsed = {
        k.removesuffix(f"/{ROOT}"): _parse(t, k, objects.uri) for k, t in zip(nodes, texts, strict=True)
    }
    return {"": document, **parsed}


def _parse(data: bytes, key: str, uri: str) -> dict[str, Any]:
    return parse_object(data, file=f"{uri}/{key}", what="the metadata")


def _indexes(arrays: list[Array], blobs: dict[str, Blob], uri: str) -> dict[str, bytes]:
    """The index of every shard that is there."""
    wanted = {
        key: index_blob(a, blobs[key], key, uri)
        for a in arrays
        if a.sharded
        for key in a.keys.values()
        if key in blobs
    }
    return dict(zip(wanted, read_all(list(wanted.values())), strict=True))
