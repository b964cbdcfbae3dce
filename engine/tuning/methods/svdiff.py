"""The singular values of each matrix learn, W' = U diag(relu(sigma + shift)) V (SVDiff, arXiv 2303.11305)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from engine.nouns.tuning import Method, RunSpec
from engine.tuning import layers, state
from engine.tuning.heads import only_head_learns
from engine.tuning.saving import head_of, write_adapter


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Give every singular value of the chosen layers a shift, which begins at 0."""
    del seed
    only_head_learns(model)
    for layer in layers.chosen_layers(model, method.modules).values():
        layers.shift_singular_values(layer)
    return model


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write how the singular values have grown, their vectors, so that dW needs no base, and the head."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.chosen_layers(model, run.method.modules).items():
        tensors[f"{name}.svdiff_left"] = layer.left
        shifted = functional.relu(layer.sigma + state.whole(layer.shift))
        tensors[f"{name}.svdiff_shift"] = shifted - layer.sigma
        tensors[f"{name}.svdiff_right"] = layer.right
    write_adapter(folder, run, "SVDIFF", tensors | head_of(model))
