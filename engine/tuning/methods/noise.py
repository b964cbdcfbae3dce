"""A scalar for each matrix, W + s N with frozen noise N, or N = W (arXiv 2501.10661, eq. 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.nouns.tuning import Method, RunSpec
from engine.tuning import layers
from engine.tuning.heads import only_head_learns
from engine.tuning.saving import head_of, noise_settings, scale_tensors, write_adapter


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Give every chosen layer a scalar, which begins at 0."""
    only_head_learns(model)
    put_scalars(model, method, seed)
    return model


def put_scalars(model: Any, method: Method, seed: int) -> None:
    """Give every chosen layer a scalar, of the kind that the method asks for."""
    for name, layer in layers.chosen_layers(model, method.modules).items():
        if method.noise == "weights":
            layers.scale(layer)
        else:
            layers.add_noise(layer, layers.drawn(seed, name, layer.weight))


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write scalars and head; the noise is drawn again from the seed."""
    tensors = scale_tensors(model) | head_of(model)
    write_adapter(folder, run, "NOISE", tensors, **noise_settings(model, run))
