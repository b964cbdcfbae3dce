"""DoRA (arXiv 2402.09353), PEFT's."""

from __future__ import annotations

from typing import Any

from engine.nouns.tuning import Method
from engine.tuning.methods.lora import save, wrapped

__all__ = ["adapt", "save"]


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Wrap the model in PEFT's, with factors and magnitudes at the chosen layers."""
    del seed
    return wrapped(model, method, use_dora=True)
