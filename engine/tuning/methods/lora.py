"""LoRA (arXiv 2106.09685), PEFT's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from engine.nouns.tuning import Method, RunSpec
from engine.tuning import layers, state
from engine.tuning.heads import head_modules
from engine.tuning.saving import TASK_TYPES


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Wrap the model in PEFT's, with factors at the chosen layers."""
    del seed
    return wrapped(model, method)


def wrapped(model: Any, method: Method, **more: Any) -> Any:
    """A model in PEFT's wrapper.

    Args:
        model: of transformers.
        method: whose layers, rank, alpha and dropout.
        more: settings of PEFT's.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    chosen, heads = layers.chosen_layers(model, method.modules), head_modules(model)
    kind = TaskType.SEQ_CLS if heads else TaskType.CAUSAL_LM
    config = LoraConfig(
        task_type=kind,
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]
        lora_dropout=method.adapter_dropout,
        target_modules=list(chosen),
        modules_to_save=heads or None,
        fan_in_fan_out=any(map(layers.is_transposed, chosen.values())),
        **more,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # PEFT asks for it
        return get_peft_model(model, config)


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Let PEFT write factors and head."""
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = run.model, run.revision or None
    config.task_type = TASK_TYPES[run.task.kind]
    model.save_pretrained(folder, state_dict=state.learnt(model))  # PEFT would write a worker's share
