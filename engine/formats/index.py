"""The index of a sharded checkpoint: which shard holds which tensor.

The index is not trusted: a shard must lie in the index's own directory, links followed, or in the blob
store of a Hub cache that the directory is a snapshot of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engine.errors import FormatError
from engine.formats.strict_json import parse_object
from engine.nouns.records import Fault, TensorInfo

_MAX_INDEX_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Index:
    """A parsed index.

    Attributes:
        path: the index file.
        raw: its bytes.
        shards: path of each shard by the name that the index gives it, sorted by that name.
        weight_map: shard name by tensor name.
        faults: shards that are not there.
    """

    path: Path
    raw: bytes
    shards: dict[str, Path]
    weight_map: dict[str, str]
    faults: tuple[Fault, ...]


def read_index(path: Path) -> Index:
    """Read an index and find its shards.

    Raises:
        FormatError: malformed, or it names a path outside its directory.
    """
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise FormatError(
                f"has {path.stat().st_size:,} bytes, over the limit for an index", file=str(path)
            )
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", file=str(path)) from error
    weight_map = parse_object(raw, file=str(path), what="the index").get("weight_map")
    if not isinstance(weight_map, dict):
        raise FormatError("has no weight_map object", file=str(path))
    shards: dict[str, Path] = {}
    faults = []
    for name in sorted({_shard_name(shard, tensor, path) for tensor, shard in weight_map.items()}):
        shard = path.parent / name
        if not _is_there(shard):
            count = sum(s == name for s in weight_map.values())
            faults.append(
                Fault(str(path), None, f"names the shard {name!r}, which is not there ({count:,} tensors)")
            )
            continue
        _check_inside(shard, name, path)
        shards[name] = shard
    return Index(path, raw, shards, weight_map, tuple(faults))


def _is_there(shard: Path) -> bool:
    try:
        return shard.is_file()
    except OSError:  # a name that no file system takes
        return False


def missing_tensors(index: Index, found: dict[str, tuple[TensorInfo, ...]]) -> list[Fault]:
    """Find the tensors that the index names and their shard does not have.

    Args:
        index: the index.
        found: the tensors of each shard that is there, by shard name.
    """
    names = {shard: {t.name for t in tensors} for shard, tensors in found.items()}
    return [
        Fault(str(index.path), tensor, f"the index puts it into {shard!r}, which does not have it")
        for tensor, shard in index.weight_map.items()
        if shard in names and tensor not in names[shard]
    ]


def _shard_name(shard: object, tensor: str, path: Path) -> str:
    if not isinstance(shard, str) or not shard or "\0" in shard:
        raise FormatError(
            f"its shard is {str(shard)[:60]!r}, expected a file name", file=str(path), tensor=tensor
        )
    pure = PurePosixPath(shard)
    if pure.is_absolute() or ".." in pure.parts or "\\" in shard:
        raise FormatError(f"names a shard outside its directory: {shard!r}", file=str(path), tensor=tensor)
    return shard


def _check_inside(shard: Path, name: str, index: Path) -> None:
    real, directory = shard.resolve(), index.parent.resolve()
    allowed = [directory]
    if directory.parent.name == "snapshots":  # a Hub cache keeps the bytes in blobs/ and links to them
        allowed.append(directory.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise FormatError(f"the shard {name!r} is a link that leads outside its directory", file=str(index))
