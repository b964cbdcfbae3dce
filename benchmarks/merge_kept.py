"""How many elements mergekit and we keep of a task vector: by trimming, and by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import table
from numpy.typing import NDArray
from safetensors.torch import load_file

from engine.merge_methods.registry import METHODS
from engine.merge_methods.wholes import magnitudes_at

TORCH = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
DENSITIES = (0.5, 0.2, 0.05)
DENSITY = 0.3
LARGE = 100_000  # elements of a tensor in which luck is small
Array = NDArray[np.float32]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model, (m,) float32."""
    (path,) = folder.glob("*.safetensors")
    return {name: tensor.float().reshape(-1) for name, tensor in load_file(path).items()}


def trimmed(samples: Path) -> str:
    """A table of the shares that trimming keeps, ours beside the density; mergekit keeps just that.

    Args:
        samples: where the models are.
    """
    base, tuned = weights(samples / "base-f32"), weights(samples / "tuned1-f32")
    rows = []
    for tag, dtype in TORCH.items():
        for size in (1.0, 0.1):
            tasks = {}
            for name, start in base.items():
                end = (start + size * (tuned[name] - start)).to(dtype).float()
                tasks[name] = (end - start.to(dtype).float()).numpy()
            rows.append([f"{tag}, changes {'as they are' if size == 1 else 'a tenth'}", *_shares(tasks)])
    heads = [f"{d:.0%} of what {of}" for d in DENSITIES for of in ("all", "one tensor")]
    return table(["task vectors", "not 0", *heads], rows)


def _shares(tasks: dict[str, Array]) -> list[str]:
    elements = sum(t.size for t in tasks.values())
    cells = [f"{sum(np.count_nonzero(t) for t in tasks.values()) / elements:.1%}"]
    for density in DENSITIES:
        kept = {}
        for name, task in tasks.items():
            ranks = METHODS["ties"].ranks_of(task.size, 1, {"density": density})[0]
            low, high = magnitudes_at(task, ranks)
            size = np.abs(task)
            kept[name] = int(((size >= np.float32(low)) & (size <= np.float32(high)) & (size > 0)).sum())
        most = max(kept[name] / tasks[name].size for name in kept)
        cells += [f"{sum(kept.values()) / elements:.2%}", f"{most:.2%}"]
    return cells


def dropped(samples: Path, results: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> str:
    """A table of what dropping at random keeps of the changes of one model, mergekit's beside ours.

    Args:
        samples: where the models are.
        results: for each dtype and seed what mergekit merged and what we did, (m,) float32 by tensor, with
            `dare_linear`, weight 1 and `DENSITY`.
    """
    rows = []
    for tag in dict.fromkeys(r[0] for r in results):
        base, tuned = weights(samples / f"base-{tag}"), weights(samples / f"tuned1-{tag}")
        for place, who in ((1, "mergekit"), (2, "ours")):
            rows.append([f"{tag}, {who}", *_luck(base, tuned, [r[place] for r in results if r[0] == tag])])
    head = ["merged", "changes", f"kept, wanted {DENSITY:.0%}", "standard errors off"]
    return table([*head, f"rescaled by, wanted {1 / DENSITY:.4f}", "sum of magnitudes"], rows)


def _luck(base: dict[str, Any], tuned: dict[str, Any], merged: list[dict[str, Any]]) -> list[str]:
    count = kept = 0
    factors, sizes = [], np.zeros(2)
    for name, start in base.items():
        task = (tuned[name] - start).double().numpy()
        large = np.abs(task) > np.abs(start.numpy()) / 512  # so that rounding the result hides none
        for one in merged:
            left = (one[name] - start).double().numpy()
            alive = large & (left != 0)
            count, kept = count + int(large.sum()), kept + int(alive.sum())
            if task.size > LARGE:
                factors.append(float(np.median(left[alive] / task[alive])))
            sizes += np.abs(left).sum(), np.abs(task).sum()
    share = kept / count
    error = (share - DENSITY) / (DENSITY * (1 - DENSITY) / count) ** 0.5
    return [
        f"{count:,}", f"{share:.3%}", f"{error:+.1f}", f"{min(factors):.4f} to {max(factors):.4f}",
        f"{sizes[0] / sizes[1]:.4f}",
    ]  # fmt: skip
