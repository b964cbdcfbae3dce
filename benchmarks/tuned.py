"""Write a sibling of a bf16 checkpoint, as if it had been tuned: the same names, shapes and shards.

python benchmarks/tuned.py BASE OUT [--std 1e-3] [--frozen 0.5] [--seed 1]

`--frozen` is the share of elements that keep their bits, chosen one by one; 1 copies the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np
from common import weight_files

_BLOCK = 1 << 22  # elements


def tune(base: Path, out: Path, *, std: float = 1e-3, frozen: float = 0.0, seed: int = 1) -> None:
    """Add Gaussian noise to all weights of a checkpoint.

    Args:
        base: a directory of safetensors files of bf16.
        out: the directory, made when missing.
        std: of the noise.
        frozen: share of elements that are left alone.
        seed: of the noise.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for extra in base.glob("*.json"):
        shutil.copy(extra, out)
    for path in weight_files(base):
        shutil.copy(path, out)
        if frozen < 1:
            _change(out / path.name, std, frozen, rng)


def _change(path: Path, std: float, frozen: float, rng: np.random.Generator) -> None:
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
        dtypes = {e["dtype"] for name, e in entries.items() if name != "__metadata__"}
        assert dtypes == {"BF16"}, dtypes
        start = 8 + length
        size = path.stat().st_size - start
        for offset in range(0, size, 2 * _BLOCK):
            file.seek(start + offset)
            codes = np.frombuffer(file.read(min(2 * _BLOCK, size - offset)), "<u2")
            values = (codes.astype(np.uint32) << 16).view(np.float32)
            noise = rng.standard_normal(codes.size, np.float32) * np.float32(std)
            if frozen:
                noise[rng.random(codes.size, np.float32) < frozen] = 0
            bits = (values + noise).view(np.uint32)
            changed = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
            file.seek(start + offset)
            file.write(np.where(noise == 0, codes, changed).tobytes())


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--std", type=float, default=1e-3)
    parser.add_argument("--frozen", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    tune(a.base, a.out, std=a.std, frozen=a.frozen, seed=a.seed)


if __name__ == "__main__":
    main()
