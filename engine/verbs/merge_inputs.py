"""What is merged: the checkpoints of a recipe, opened, and what becomes of each of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.merge import MergeRecipe, parse_merge
from engine.config.strict import dump_yaml, read_yaml
from engine.errors import shown
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.formats.vocabulary import read_vocabulary
from engine.merge_methods.registry import SCHEMAS
from engine.nouns.merging import Roles
from engine.nouns.names import place as place_of
from engine.nouns.records import Checkpoint
from engine.plan.fates import Fate, decide
from engine.plan.rows import RowMap, Table, map_rows
from engine.storage import Place, local_path, locate

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is merged.

    Attributes:
        recipe: how.
        operands: what is read, each once; the first gives names, configuration and tokenizer.
        place: where the first was found.
        roles: which of them is what.
        config: the configuration as plain data, with the places where the models were found.
        text: the configuration as it was written, without what may be secret.
        rows: which rows for tokens belong together; None where they are all in their places.
        tables: how many rows for tokens each operand has.
        layers: how many layers the first operand has.
    """

    recipe: MergeRecipe
    operands: tuple[Checkpoint, ...]
    place: Place
    roles: Roles
    config: dict[str, Any]
    text: str
    rows: RowMap | None
    tables: tuple[int, ...]
    layers: int

    def fates(self) -> list[Fate]:
        """What becomes of every tensor; see `decide`."""
        models, recipe = self.roles.models, self.recipe
        return decide(
            self.operands,
            models,
            dtype=recipe.out_dtype,
            wide=recipe.wide,
            rows=self.rows,
            tables=self.tables,
        )


def open_inputs(config: str | Path | Mapping[str, Any]) -> Inputs:
    """Read a configuration, and open what is to be merged.

    Args:
        config: a file with mergekit's YAML, or what it says.

    Raises:
        ConfigError: with every fault of the configuration.
        FormatError: a checkpoint is damaged, or the vocabularies do not go together.
        TaskError: a store does not answer.
    """
    data = dict(config) if isinstance(config, Mapping) else read_yaml(config)
    where = "the configuration" if isinstance(config, Mapping) else str(config)
    recipe = parse_merge(data, SCHEMAS, where)
    opened: dict[str, Checkpoint] = {}
    places: dict[str, Place] = {}
    for uri in (recipe.base or recipe.models[0], *recipe.models):
        if uri not in opened:
            place = locate(address_of(uri))
            opened[uri] = open_checkpoint(place.uri, place)
            require_sound(opened[uri])
            places[opened[uri].uri] = place
    operands = {c.uri: c for c in opened.values()}
    numbers = {uri: list(operands).index(c.uri) for uri, c in opened.items()}
    models = tuple(numbers[uri] for uri in recipe.models)
    tables = [_table(checkpoint, places[checkpoint.uri]) for checkpoint in operands.values()]
    return Inputs(
        recipe=recipe,
        operands=tuple(operands.values()),
        place=next(iter(places.values())),
        roles=Roles(0 if recipe.schema.base else None, models),
        config=_resolved(data, {uri: c.uri for uri, c in opened.items()}),
        text=shown(dump_yaml(data)),
        rows=_rows(tables, recipe.tokenizer),
        tables=tuple(table.rows for table in tables),
        layers=_layers(next(iter(operands.values()))),
    )


def _layers(checkpoint: Checkpoint) -> int:
    found = (place_of(t.name).layer for t in checkpoint.tensors)
    return 1 + max((layer for layer in found if layer is not None), default=-1)


def address_of(model: str) -> str:
    """Where a model is: what has the form of a repository's name and is no path is on the Hub."""
    return f"hf://{model}" if _REPOSITORY.fullmatch(model) and local_path(model) is None else model


def _resolved(data: dict[str, Any], uris: Mapping[str, str]) -> dict[str, Any]:
    """A configuration with the places where everything was found."""
    models = [m | {"model": uris.get(m["model"], m["model"])} for m in data["models"]]
    base = {"base_model": uris[data["base_model"]]} if data.get("base_model") in uris else {}
    return data | {"models": models} | base


def _rows(tables: Sequence[Table], mode: str | None) -> RowMap | None:
    """Which rows for tokens belong together, if there are any.

    Raises:
        FormatError: the vocabularies do not go together.
    """
    if len(tables) < 2 or not all(table.rows for table in tables):
        return None
    found = map_rows(tables, mode)
    moved = any(len({*segment.starts, segment.first}) > 1 for segment in found.segments)
    return found if moved or len({found.rows, *(table.rows for table in tables)}) > 1 else None


def _table(checkpoint: Checkpoint, place: Place) -> Table:
    """The rows for tokens: those of the embedding."""
    tables = [t for t in checkpoint.tensors if len(t.shape) == 2 and place_of(t.name).role == "embedding"]
    vocabulary = read_vocabulary(checkpoint.uri, place) if tables else None
    return Table(checkpoint.uri, max((t.shape[0] for t in tables), default=0), vocabulary)


def refusals(fates: Sequence[Fate]) -> tuple[tuple[str, str], ...]:
    """Name and reason of every tensor that is left out."""
    return tuple((f.tensor.name, f.reason) for f in fates if f.kind == "refused")
