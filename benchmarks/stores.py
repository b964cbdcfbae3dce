"""The same checkpoint from every store and format: whole processes, in turn, time and peak memory.

python benchmarks/stores.py [--checkpoint DIR] [--rounds 3] [--workers 2]

Peers, where their packages are installed: torch.load of the torch file with a count of each tensor, and
huggingface_hub's download followed by a scan from disk, which is what one does without ranged reads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import GAUSSMETER, HERE, Cost, checkpoint, measure, preamble, table, weight_files
from serve import served

_TO_TORCH = """
import sys, torch
from safetensors.torch import load_file
weights = {}
for path in sys.argv[2:]:
    weights.update(load_file(path))
torch.save(weights, sys.argv[1])
"""
_DOWNLOAD = """
import subprocess, sys, tempfile
from huggingface_hub import snapshot_download
with tempfile.TemporaryDirectory() as folder:
    snapshot_download("bench/model", local_dir=folder, cache_dir=folder + "/cache")
    subprocess.run([*sys.argv[1:], folder], check=True)
"""


def make_stores(source: Path, root: Path) -> None:
    """Lay the checkpoint down in every format; safetensors by a link."""
    (root / "bench").mkdir()
    (root / "bench" / "model").symlink_to(source)
    (root / "safetensors").symlink_to(source)
    (root / "torch").mkdir()
    files = list(map(str, weight_files(source)))
    subprocess.run(
        [sys.executable, "-c", _TO_TORCH, str(root / "torch" / "pytorch_model.bin"), *files], check=True
    )
    for name, codec in (("raw.zarr", "none"), ("zstd.zarr", "zstd")):
        subprocess.run(
            [GAUSSMETER, "pack", "-q", str(source), str(root / name), "--codec", codec], check=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print(preamble())
    with (
        checkpoint("tinyllama-1.1b", given.checkpoint) as source,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-", dir=source.resolve().parent) as folder,
    ):
        root = Path(folder)
        make_stores(source.resolve(), root)
        with served("web", root) as web, served("hub", root) as hub:
            os.environ |= {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
            scan = [GAUSSMETER, "scan", "-q", "--force", "-w", f"{root}/w.duckdb", "-j", str(given.workers)]
            commands = {
                "safetensors": [*scan, str(root / "safetensors")],
                "torch": [*scan, str(root / "torch")],
                "Zarr, raw": [*scan, str(root / "raw.zarr")],
                "Zarr, zstd": [*scan, str(root / "zstd.zarr")],
                "safetensors over HTTP": [*scan, f"{web}/safetensors/{weight_files(source)[0].name}"],
                "torch over HTTP": [*scan, f"{web}/torch"],
                "Zarr, raw, over HTTP": [*scan, f"{web}/raw.zarr"],
                "the Hub's protocol": [*scan, "hf://bench/model"],
                "peer: download, then scan": [sys.executable, "-c", _DOWNLOAD, *scan],
                "peer: torch": [sys.executable, str(HERE / "peers" / "paper_torch.py"), str(source)],
            }
            report(commands, given.rounds, sum(f.stat().st_size for f in weight_files(source)))


def report(commands: dict[str, list[str]], rounds: int, size: int) -> None:
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            costs[name].append(measure(command))
    first = [c.wall for c in costs["safetensors"]]
    rows = []
    for name, found in costs.items():
        wall = median(c.wall for c in found)
        ratio = median(c.wall / f for c, f in zip(found, first, strict=True))
        peak = max(c.peak for c in found) / 2**20
        rows.append([name, f"{wall:.2f}", f"{size / wall / 1e9:.2f}", f"{peak:,.0f}", f"{ratio:.2f}"])
    print(f"{size / 1e9:.2f} GB\n")
    print(table(["from", "median s", "GB/s", "peak MiB", "times safetensors on disk"], rows))


if __name__ == "__main__":
    main()
