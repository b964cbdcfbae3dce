"""How safetensors files will look that are to be written: their names, headers and sizes, and the index.

Source: the format's description in huggingface/safetensors, and what transformers' `save_pretrained` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.nouns.records import TensorInfo

INDEX_NAME = "model.safetensors.index.json"
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Shard:
    """A file before it is written.

    Attributes:
        name: of the file.
        header: its first bytes, to where the first tensor begins.
        nbytes: of all of it.
    """

    name: str
    header: bytes
    nbytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes.

    Attributes:
        shards: the files.
        tensors: what they hold, in file order, with file and offset.
    """

    shards: tuple[Shard, ...]
    tensors: tuple[TensorInfo, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(shard.nbytes for shard in self.shards)

    def index(self) -> bytes | None:
        """The index of several files, as JSON; None if there is only one."""
        if len(self.shards) < 2:
            return None
        names = {t.name: self.shards[t.file].name for t in sorted(self.tensors, key=lambda t: t.name)}
        size = sum(t.nbytes for t in self.tensors)
        return (json.dumps({"metadata": {"total_size": size}, "weight_map": names}, indent=2) + "\n").encode()


def lay_out(tensors: Sequence[TensorInfo], shard_bytes: int, metadata: Mapping[str, str]) -> Layout:
    """Distribute tensors over files.

    Files are filled in the order of the tensors; one that is larger than a file has a file of its own. Within
    a file wider dtypes come first, so that every element lies at a multiple of its size.

    Args:
        tensors: name, dtype and shape count, and nbytes.
        shard_bytes: how much of tensors a file holds at most.
        metadata: of every file.
    """
    groups: list[list[TensorInfo]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.nbytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    shards: list[Shard] = []
    placed: list[TensorInfo] = []
    for number, group in enumerate(groups):
        group.sort(key=lambda t: -t.kind.bits)
        header, ends = _header(group, metadata)
        shards.append(Shard(_name(number, len(groups)), header, len(header) + (ends[-1] if ends else 0)))
        starts = [len(header) + end - t.nbytes for t, end in zip(group, ends, strict=True)]
        placed += (
            replace(t, file=number, offset=start, pieces=(), ordered=True)
            for t, start in zip(group, starts, strict=True)
        )
    return Layout(tuple(shards), tuple(placed))


def _name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05}-of-{count:05}.safetensors"


def _header(tensors: Sequence[TensorInfo], metadata: Mapping[str, str]) -> tuple[bytes, list[int]]:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    ends: list[int] = []
    position = 0
    for tensor in tensors:
        end = position + tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end],
        }  # fmt: skip
        ends.append(end)
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, ends
