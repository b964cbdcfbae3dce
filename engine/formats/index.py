"""The index of a sharded checkpoint: which shard holds which tensor.

The index is not trusted: a shard must lie in the index's own directory, links followed, or in the blob
store of a Hub cache that the directory is a snapshot of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from engine.errors import FormatError
from engine.formats.strict_json import parse_object
from engine.nouns.records import Fault, TensorInfo
from engine.storage import Folder, read_whole

_MAX_INDEX_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Index:
    """A parsed index.

    Attributes:
        uri: the index file.
        raw: its bytes.
        shards: address of each shard by the name that the index gives it, sorted by that name.
        weight_map: shard name by tensor name.
        faults: shards that are not there.
    """

    uri: str
    raw: bytes
    shards: dict[str, str]
    weight_map: dict[str, str]
    faults: tuple[Fault, ...]


def read_index(folder: Folder, name: str) -> Index:
    """Read an index and find its shards.

    Args:
        folder: that it lies in.
        name: its file name there.

    Raises:
        FormatError: malformed, or it names a path outside its directory.
    """
    uri = folder.address(name)
    raw = read_whole(uri, _MAX_INDEX_BYTES)
    weight_map = parse_object(raw, file=uri, what="the index").get("weight_map")
    if not isinstance(weight_map, dict):
        raise FormatError("has no weight_map object", file=uri)
    shards: dict[str, str] = {}
    faults = []
    for shard in sorted({_shard_name(shard, tensor, uri) for tensor, shard in weight_map.items()}):
        if not folder.has(shard):
            count = sum(s == shard for s in weight_map.values())
            faults.append(
                Fault(uri, None, f"names the shard {shard!r}, which is not there ({count:,} tensors)")
            )
            continue
        folder.check_inside(shard, uri)
        shards[shard] = folder.address(shard)
    return Index(uri, raw, shards, weight_map, tuple(faults))


def missing_tensors(index: Index, found: dict[str, tuple[TensorInfo, ...]]) -> list[Fault]:
    """Find the tensors that the index names and their shard does not have.

    Args:
        index: the index.
        found: the tensors of each shard that is there, by shard name.
    """
    names = {shard: {t.name for t in tensors} for shard, tensors in found.items()}
    return [
        Fault(index.uri, tensor, f"the index puts it into {shard!r}, which does not have it")
        for tensor, shard in index.weight_map.items()
        if shard in names and tensor not in names[shard]
    ]


def _shard_name(shard: object, tensor: str, uri: str) -> str:
    if not isinstance(shard, str) or not shard or "\0" in shard:
        raise FormatError(f"its shard is {str(shard)[:60]!r}, expected a file name", file=uri, tensor=tensor)
    pure = PurePosixPath(shard)
    if pure.is_absolute() or ".." in pure.parts or "\\" in shard:
        raise FormatError(f"names a shard outside its directory: {shard!r}", file=uri, tensor=tensor)
    return shard
