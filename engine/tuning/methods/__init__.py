"""One module for each method, all of the same anatomy.

    adapt(model, method, seed)   makes a model of transformers learn what the method learns; returns the model
                                 that is trained, which may be a wrapper
    save(model, run, folder)     writes what was learnt, as safetensors with a strict configuration

What a module shares with others is in `engine.tuning.layers` and `engine.tuning.saving`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from engine.nouns.tuning import METHODS, Method, RunSpec


class MethodModule(Protocol):
    """What every module of this folder has."""

    def adapt(self, model: Any, method: Method, seed: int) -> Any:
        """Make a model learn what the method learns."""

    def save(self, model: Any, run: RunSpec, folder: Path) -> None:
        """Write what was learnt."""


def method_module(name: str) -> MethodModule:
    """The module of a method, loaded when it is first used."""
    assert name in METHODS
    return cast(MethodModule, import_module(f"engine.tuning.methods.{name}"))
