"""Adapters of ours on disk: `adapter_model.safetensors` and a strict `adapter_config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.formats.adapters.keys import WRAPPER
from engine.formats.adapters.own_settings import FORMAT
from engine.nouns.tuning import RunSpec
from engine.tuning import state
from engine.tuning.heads import head_tensors
from engine.tuning.layers import scalars

TASK_TYPES = {"labels": "SEQ_CLS", "score": "SEQ_CLS", "text": "CAUSAL_LM"}


def write_adapter(
    folder: Path, run: RunSpec, kind: str, tensors: Mapping[str, Tensor], **settings: Any
) -> None:
    """Write an adapter.

    Args:
        folder: made if it is missing.
        run: what learnt it.
        kind: its `peft_type`.
        tensors: by name, without PEFT's prefix.
        settings: beside those that all have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {WRAPPER + name: _plain(tensor) for name, tensor in tensors.items()}
    save_file(found, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": kind,
        "format": FORMAT,
        "base_model_name_or_path": run.model,
        "base_revision": run.revision,
        "task_type": TASK_TYPES[run.task.kind],
        **settings,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _plain(tensor: Tensor) -> Tensor:
    return state.whole(tensor).to("cpu", torch.float32).contiguous().clone()


def head_of(model: nn.Module) -> dict[str, Tensor]:
    """The head's weights."""
    return dict(head_tensors(model))


def noise_settings(model: nn.Module, run: RunSpec) -> dict[str, Any]:
    """What must be known to form s N again."""
    shapes = {f"{name}.weight": list(layer.weight.shape) for name, layer in scalars(model)}
    return {"noise": run.method.noise, "seed": run.seed, "shapes": shapes}


def scale_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The learnt scalars."""
    return {f"{name}.noise_scale": layer.noise_scale for name, layer in scalars(model)}
