"""LoRA and a scalar for each matrix, (1 + s) W + B A, or W + s N + B A (arXiv 2501.10661, eq. 6).

The scalar is put on the layer first; then PEFT adapts what it takes for any linear layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.formats.adapters.keys import WRAPPER
from engine.nouns.tuning import Method, RunSpec
from engine.tuning import layers, state
from engine.tuning.methods.lora import wrapped
from engine.tuning.methods.noise import put_scalars
from engine.tuning.saving import noise_settings, scale_tensors, write_adapter


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Give every chosen layer a scalar, which begins at 0, and wrap the model in PEFT's."""
    put_scalars(model, method, seed)
    model = wrapped(model, method)
    for _, layer in layers.scalars(model):  # PEFT freezes what is not its own
        layer.noise_scale.requires_grad_(True)
    return model


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write factors, scalars and head; the noise is drawn again from the seed."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(model, state_dict=state.learnt(model))
    tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in found.items()}
    method = run.method
    write_adapter(
        folder,
        run,
        "LORA_NOISE",
        tensors | scale_tensors(model),
        **noise_settings(model, run),
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.adapter_dropout,
        fan_in_fan_out=model.peft_config["default"].fan_in_fan_out,
    )
