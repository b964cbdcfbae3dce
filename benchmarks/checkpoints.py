"""Write a checkpoint with the tensor names, shapes and shards of a real model, and made-up weights.

python benchmarks/checkpoints.py LAYOUT OUT [--dtype bf16|f16|f32] [--fill gauss|sparse|half-zero] [--seed N]

`gauss` draws each matrix from a Gaussian whose sigma grows with depth, one element in a thousand eight
times larger; `half-zero` is the same with every other element, at random, set to zero; `sparse` leaves
holes, which read as zeros: any size, no disk. The bytes depend on nothing but the arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from layouts import LAYOUTS, Shape
from numpy.typing import NDArray

DTYPES = {"bf16": ("BF16", 2, "bfloat16"), "f16": ("F16", 2, "float16"), "f32": ("F32", 4, "float32")}
FILLS = ("gauss", "sparse", "half-zero")
_BLOCK = 1 << 21  # elements drawn at once by one thread


def draw(name: str, fill: str, seed: int, block: int, out: NDArray[np.float32]) -> None:
    """Fill a block of a tensor with weights.

    Args:
        name: of the tensor.
        fill: `gauss` or `half-zero`.
        seed: of the checkpoint.
        block: number of the block within the tensor.
        out: (n,) float32, overwritten.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), block])
    rng.standard_normal(dtype=np.float32, out=out)
    if "norm" in name:
        out *= np.float32(0.1)
        out += np.float32(1)
        return
    depth = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
    out *= np.float32(0.015 + 0.0005 * depth)
    out[rng.integers(0, out.size, out.size // 1000)] *= np.float32(8)
    if fill == "half-zero":
        coins = np.unpackbits(rng.integers(0, 256, -(-out.size // 8), dtype=np.uint8))
        out *= coins[: out.size]


def encode(x: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Round (n,) float32 to the storage dtype, to the nearest and of two the even; bf16 as patterns."""
    if dtype != "bf16":
        return x.astype("<f4" if dtype == "f32" else "<f2", copy=False)
    patterns = x.view(np.uint32)
    rounding = (patterns >> np.uint32(16)) & np.uint32(1)
    rounding += np.uint32(0x7FFF)
    rounding += patterns
    rounding >>= np.uint32(16)
    return rounding.astype("<u2")


def _shards(tensors: dict[str, Shape], item: int, most: int) -> list[dict[str, Shape]]:
    shards: list[dict[str, Shape]] = [{}]
    used = 0
    for name, shape in tensors.items():
        nbytes = prod(shape) * item
        if shards[-1] and used + nbytes > most:
            shards.append({})
            used = 0
        shards[-1][name] = shape
        used += nbytes
    return shards


def _header(tensors: dict[str, Shape], dtype: str) -> tuple[bytes, dict[str, int], int]:
    """Bytes of a shard's header, where each tensor starts in the file, and the file's length."""
    tag, item, _ = DTYPES[dtype]
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, shape in tensors.items():
        starts[name], end = end, end + prod(shape) * item
        entries[name] = {"dtype": tag, "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    return head, {name: start + len(head) for name, start in starts.items()}, end + len(head)


def write_shard(path: Path, tensors: dict[str, Shape], dtype: str, fill: str, seed: int = 0) -> None:
    """Write one safetensors file; arguments as for `write_checkpoint`."""
    head, starts, length = _header(tensors, dtype)
    item = DTYPES[dtype][1]

    def jobs() -> Iterator[tuple[str, int, int]]:
        for name, shape in tensors.items():
            for block, first in enumerate(range(0, prod(shape), _BLOCK)):
                yield name, block, min(_BLOCK, prod(shape) - first)

    def run(job: tuple[str, int, int]) -> None:
        name, block, size = job
        out = np.empty(size, np.float32)
        draw(name, fill, seed, block, out)
        file.flush()
        os.pwrite(file.fileno(), encode(out, dtype).data.cast("B"), starts[name] + block * _BLOCK * item)

    with path.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        file.write(head)
        file.truncate(length)
        if fill != "sparse":
            for _ in pool.map(run, jobs()):
                pass


def write_checkpoint(
    layout: str, out: Path, *, dtype: str = "bf16", fill: str = "gauss", seed: int = 0
) -> int:
    """Write a checkpoint into a directory, made when missing.

    Args:
        layout: a key of `LAYOUTS`.
        out: the directory.
        dtype: a key of `DTYPES`.
        fill: one of `FILLS`.
        seed: of the weights.

    Returns:
        bytes of its tensors.
    """
    model, item = LAYOUTS[layout], DTYPES[dtype][1]
    tensors = model.tensors()
    shards = _shards(tensors, item, model.shard_bytes * item // 2)
    out.mkdir(parents=True, exist_ok=True)
    total = sum(prod(shape) for shape in tensors.values()) * item
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        many = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        file = many if len(shards) > 1 else "model.safetensors"
        write_shard(out / file, shard, dtype, fill, seed)
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (out / "config.json").write_text(json.dumps(model.config(DTYPES[dtype][2]), indent=1))
    return total


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--fill", choices=FILLS, default="gauss")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    total = write_checkpoint(a.layout, a.out, dtype=a.dtype, fill=a.fill, seed=a.seed)
    files = len(list(a.out.glob("*.safetensors")))
    print(f"{a.out}: {total / 1e9:.2f} GB in {files} files", file=sys.stderr)


if __name__ == "__main__":
    main()
