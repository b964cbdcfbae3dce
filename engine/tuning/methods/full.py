"""Everything learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.nouns.tuning import Method, RunSpec


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Let everything learn."""
    del method, seed
    model.requires_grad_(True)
    return model


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write a whole checkpoint."""
    del run
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
