"""What is edited: a model, opened, maybe its base, and what is to be kept of which tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import FormatError
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.editing import Edit
from engine.nouns.records import Checkpoint
from engine.plan import Selection
from engine.plan.editing import Choice
from engine.storage import Place, locate


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be edited, and how.

    Attributes:
        model: what is edited.
        place: where that was found.
        base: what it is compared with, if anything.
        change: what is kept.
        choice: of which tensors.
    """

    model: Checkpoint
    place: Place
    base: Checkpoint | None
    change: Edit
    choice: Choice

    @property
    def operands(self) -> tuple[Checkpoint, ...]:
        """What is read; the model gives the names."""
        return (self.model,) if self.base is None else (self.model, self.base)

    def spec(self) -> dict[str, Any]:
        """What decides what is written, apart from the bytes of the inputs."""
        return {
            **asdict(self.change),
            **asdict(self.choice.selection),
            "matrices": self.choice.matrices,
            "model": self.model.uri,
            "base": self.base.uri if self.base else None,
            "revisions": [c.revision for c in self.operands],
        }


def wish_of(record: Mapping[str, Any], file: str) -> Wish:
    """What was edited, by the record of it; `file` is for messages.

    Raises:
        FormatError: the record does not say it.
        ConfigError: what was edited is not there any more.
    """
    try:
        spec = record["edit"]
        change = Edit(spec["keep"], float(spec["t"]), None if spec["floor"] is None else float(spec["floor"]))
        selection = Selection(tuple(spec["include"]), tuple(spec["exclude"]))
        model, base, matrices = str(spec["model"]), spec["base"], bool(spec["matrices"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("does not say how it was edited", file=file) from error
    others = None if base is None else opened(str(base))[0]
    return Wish(*opened(model), others, change, Choice(selection, matrices))


def opened(uri: str) -> tuple[Checkpoint, Place]:
    """Open a checkpoint that must be sound.

    Raises:
        ConfigError, FormatError, TaskError: see `open_checkpoint`.
    """
    place = locate(uri)
    checkpoint = open_checkpoint(place.uri, place)
    require_sound(checkpoint)
    return checkpoint, place
