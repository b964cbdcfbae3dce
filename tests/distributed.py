"""Distributed checkpoints by torch itself, with tensors cut as many processes would cut them."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")

from torch.distributed.checkpoint.default_planner import DefaultSavePlanner  # noqa: E402
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata  # noqa: E402
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItemType  # noqa: E402


def spans(size: int, parts: int) -> list[tuple[int, int]]:
    step = max(-(-size // parts), 1)
    return [(first, min(step, size - first)) for first in range(0, size, step)]


class Cut(DefaultSavePlanner):  # type: ignore[misc]
    """Saves each tensor in a grid of chunks.

    Args:
        grid: how many along each dimension, at most.
    """

    def __init__(self, grid: Sequence[int]) -> None:
        super().__init__()
        self._grid = grid

    def create_local_plan(self) -> Any:
        plan = super().create_local_plan()
        self.plan = dataclasses.replace(plan, items=[part for item in plan.items for part in self._cut(item)])
        return self.plan

    def _cut(self, item: Any) -> Iterator[Any]:
        whole = item.tensor_data
        if whole is None or not whole.size or 0 in whole.size:
            yield item
            return
        grid = [*self._grid, *[1] * len(whole.size)]
        for cell in product(*(spans(n, k) for n, k in zip(whole.size, grid, strict=False))):
            corner, size = (torch.Size(x) for x in zip(*cell, strict=True))
            data = TensorWriteData(ChunkStorageMetadata(corner, size), whole.properties, whole.size)
            index = dataclasses.replace(item.index, offset=corner)
            yield dataclasses.replace(item, type=WriteItemType.SHARD, index=index, tensor_data=data)

    def resolve_data(self, item: Any) -> Any:
        if item.type != WriteItemType.SHARD:
            return super().resolve_data(item)
        chunk = item.tensor_data.chunk
        cell = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
        return self.state_dict[item.index.fqn][cell]


def save(
    folder: Path, state: Any, *, grid: Sequence[int] = (1,), files: int = 1, one_each: bool = False
) -> Path:
    writer = dcp.FileSystemWriter(folder, thread_count=files, single_file_per_rank=not one_each)
    dcp.save(state, storage_writer=writer, planner=Cut(grid), no_dist=True)
    return folder


def change(folder: Path, how: Callable[[Any], None]) -> Path:
    """Change the metadata of a checkpoint."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    how(metadata)
    path.write_bytes(pickle.dumps(metadata))
    return folder
