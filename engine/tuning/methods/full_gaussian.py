"""Noise in place of the weights, and only its sigma learns: W = s N (arXiv 2501.10661, Table 2, last row)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.nouns.tuning import Method, RunSpec
from engine.tuning import layers
from engine.tuning.heads import only_head_learns
from engine.tuning.saving import head_of, noise_settings, scale_tensors, write_adapter


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Put noise in the place of every chosen weight, with the weight's sigma."""
    only_head_learns(model)
    for name, layer in layers.chosen_layers(model, method.modules).items():
        layers.replace_by_noise(layer, layers.drawn(seed, name, layer.weight))
    return model


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write sigmas and head; the noise is drawn again from the seed."""
    tensors = scale_tensors(model) | head_of(model)
    write_adapter(folder, run, "FULL_GAUSSIAN", tensors, **noise_settings(model, run))
