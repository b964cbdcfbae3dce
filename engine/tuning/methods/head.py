"""Only the new head learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.nouns.tuning import Method, RunSpec
from engine.tuning.heads import only_head_learns
from engine.tuning.saving import head_of, write_adapter


def adapt(model: Any, method: Method, seed: int) -> Any:
    """Freeze what was pretrained."""
    del method, seed
    only_head_learns(model)
    return model


def save(model: Any, run: RunSpec, folder: Path) -> None:
    """Write the head."""
    write_adapter(folder, run, "HEAD", head_of(model))
