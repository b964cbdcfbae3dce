"""A Zarr version 3 group as a checkpoint, one array a tensor."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from engine.errors import FormatError
from engine.formats.marks import ROOT
from engine.formats.strict_json import parse_object
from engine.formats.zarr.array import MARK, Array, array_info, index_blob, missing_chunk, read_array
from engine.formats.zarr.objects import Blob, Objects, read_all
from engine.nouns.records import SourceFile, TensorInfo

MOST_OBJECTS = 1_000_000
"""Of an array in a store that cannot be listed, where each is asked for."""


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
        if _is_array(path, document, objects.uri)
    ]
    _check_names(arrays, objects.uri)
    _check_count(arrays, objects)
    blobs = objects.find([key for a in arrays for _, key in a.objects()])
    indexes = _indexes(arrays, blobs, objects.uri)
    files = tuple({b.file.uri: b.file for b in blobs.values()}.values())
    numbers = {f.uri: i for i, f in enumerate(files)}
    found = [array_info(a, blobs, indexes, numbers, objects.uri) for a in arrays]
    tensors = (*found, *_aliases(mark, found, objects.uri))
    digest = hashlib.sha256(repr(sorted(documents.items())).encode())
    for key in sorted(indexes):
        digest.update(indexes[key])
    return files, tensors, digest.hexdigest()


def pack_mark(objects: Objects) -> dict[str, Any]:
    """What `gaussmeter pack` has noted of a store; nothing for one of others.

    Raises:
        FormatError: it is no Zarr store.
    """
    return _mark(_root(objects))


def _is_array(path: str, document: dict[str, Any], uri: str) -> bool:
    kind = document.get("node_type")
    if kind not in ("array", "group"):
        raise FormatError(f"is a node of no known type: {str(kind)[:60]!r}", file=uri, tensor=path)
    return bool(kind == "array")


def _check_count(arrays: list[Array], objects: Objects) -> None:
    """Refuse arrays of more chunks than there are objects, before the keys of all of them are made."""
    keys = objects.keys()
    present = MOST_OBJECTS if keys is None else len(keys)
    for array in arrays:
        if array.count <= present:
            continue
        if keys is None:
            raise FormatError(f"has {array.count:,} chunks", file=objects.uri, tensor=array.name)
        there = set(keys)
        lost = next(key for _, key in array.objects() if key not in there)
        raise missing_chunk(array, lost, objects.uri)


def _mark(root: dict[str, Any]) -> dict[str, Any]:
    """What `gaussmeter pack` has noted of the group; nothing for a group of others."""
    attributes = root.get("attributes") or {}
    mark = attributes.get(MARK) if isinstance(attributes, dict) else None
    return mark if isinstance(mark, dict) else {}


def _aliases(mark: dict[str, Any], found: list[TensorInfo], uri: str) -> list[TensorInfo]:
    """The tied tensors that `gaussmeter pack` has noted instead of writing them twice."""
    stored = {t.name: t for t in found}
    aliases = []
    notes = mark.get("aliases") or {}
    if not isinstance(notes, dict) or not all(isinstance(n, dict) for n in notes.values()):
        raise FormatError("its note of tied tensors makes no sense", file=uri)
    for name, note in notes.items():
        of = stored.get(str(note.get("of")))
        sizes = note.get("shape")
        if of is None or name in stored or not _is_shape(sizes):
            raise FormatError(f"is noted as an alias of {note.get('of')!r}", file=uri, tensor=name)
        shape = tuple(sizes)
        pieces = of.pieces if shape == of.shape else ()  # in which order they were is not noted
        aliases.append(replace(of, name=name, shape=shape, pieces=pieces, alias_of=of.name))
    return aliases


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)


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
    document = _root(objects)
    if not isinstance(document.get("attributes") or {}, dict):
        raise FormatError("its attributes are no object", file=objects.uri)
    consolidated = _consolidated(document, objects.uri)
    keys = objects.keys()
    if keys is None:
        if document.get("node_type") == "group" and not consolidated:
            raise FormatError(
                "its arrays cannot be listed, and it has no consolidated metadata", file=objects.uri
            )
        return {"": document, **consolidated}
    nodes = [k for k in keys if k.endswith(f"/{ROOT}")]
    complete = {k.removesuffix(f"/{ROOT}") for k in nodes} == set(consolidated)
    if complete and objects.distant and _mark(document):  # others forget to write it anew
        return {"": document, **consolidated}
    found = objects.find(nodes)
    texts = read_all([found[k] for k in nodes])
    parsed = {
        k.removesuffix(f"/{ROOT}"): _parse(t, k, objects.uri) for k, t in zip(nodes, texts, strict=True)
    }
    return {"": document, **parsed}


def _root(objects: Objects) -> dict[str, Any]:
    """The root's zarr.json."""
    root = objects.find([ROOT])
    if ROOT not in root:
        raise FormatError(f"has no {ROOT}: it is no Zarr version 3 store", file=objects.uri)
    document = _parse(read_all([root[ROOT]])[0], ROOT, objects.uri)
    if document.get("zarr_format") != 3:
        raise FormatError(f"has Zarr format {document.get('zarr_format')}, expected 3", file=objects.uri)
    return document


def _consolidated(root: dict[str, Any], uri: str) -> dict[str, dict[str, Any]]:
    """The metadata of all nodes, where the root has it."""
    summary = root.get("consolidated_metadata") or {}
    nodes = (summary.get("metadata") or {}) if isinstance(summary, dict) else None
    if not isinstance(nodes, dict) or not all(isinstance(n, dict) for n in nodes.values()):
        raise FormatError("its consolidated metadata makes no sense", file=uri)
    return nodes


def _parse(data: bytes, key: str, uri: str) -> dict[str, Any]:
    return parse_object(data, file=f"{uri}/{key}", what="the metadata")


def _indexes(arrays: list[Array], blobs: dict[str, Blob], uri: str) -> dict[str, bytes]:
    """The index of every shard that is there."""
    wanted = {
        key: index_blob(a, blobs[key], key, uri)
        for a in arrays
        if a.sharded
        for _, key in a.objects()
        if key in blobs
    }
    return dict(zip(wanted, read_all(list(wanted.values())), strict=True))
