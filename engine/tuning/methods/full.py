"""Everything learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from engine.nouns.tuning import Method, RunSpec
from engine.tuning import state


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Let everything learn."""
    del method, seed
    model.requires_grad_(True)
    return model


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write a whole checkpoint."""
    del run
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[int, str] = {}  # of two names of one tensor, transformers writes the right one
    first = {n: names.setdefault(id(p), n) for n, p in model.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():  # one after the other: a device has no room for all
        twin = found.get(first.get(name, name))
        found[name] = state.whole(tensor).cpu() if twin is None else twin
    model.save_pretrained(folder, state_dict=found)
