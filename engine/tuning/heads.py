"""The part of a model that is new for its task."""

from __future__ import annotations

from torch import nn


def head_modules(model: nn.Module) -> list[str]:
    """Names of the modules beside the pretrained model: of BERT the classifier, of DeBERTa the pooler too.

    A model that writes has none: its last layer belongs to what was pretrained.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    if not hasattr(model, prefix) or not hasattr(model, "num_labels") or _writes(model):
        return []
    own = [(name, child) for name, child in model.named_children() if name != prefix]
    return [name for name, child in own if any(True for _ in child.parameters())]


def _writes(model: nn.Module) -> bool:
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def only_head_learns(model: nn.Module) -> None:
    """Freeze everything but the head."""
    model.requires_grad_(False)
    for name in head_modules(model):
        model.get_submodule(name).requires_grad_(True)


def head_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The head's weights, by name."""
    heads = tuple(f"{name}." for name in head_modules(model))
    return {name: p for name, p in model.named_parameters() if name.startswith(heads)} if heads else {}
