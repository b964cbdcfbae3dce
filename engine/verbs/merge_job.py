"""One merge, from the fates of its tensors to the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from engine.errors import ConfigError
from engine.formats.safetensors_writer import Layout, lay_out
from engine.merge_methods.registry import METHODS
from engine.nouns.merging import Need
from engine.nouns.names import place
from engine.nouns.records import Checkpoint, TensorInfo
from engine.nouns.tasks import Into, Sought
from engine.plan import Limits, Selection
from engine.plan.fates import Fate
from engine.plan.merge import Blend, Recipe, plan_merge
from engine.plan.pairing import Pairing, pair
from engine.plan.rows import RowMap
from engine.plan.shared import Covered, SharedPlan
from engine.tasks.measuring import band_of, sigma_of
from engine.tasks.merge import Manner, MergeBody
from engine.verbs.delta_sources import delta_source
from engine.verbs.derive import Means, derive
from engine.verbs.merge_card import card, files_of, record_of
from engine.verbs.merge_inputs import Inputs
from engine.verbs.merge_output import Output
from engine.verbs.written import CARD, Where, Written, identity_of
from engine.warehouse.deltas import find_delta, sketches_of
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Standing

KIND = "merge"
_COUNTED = {Need.SIGMA, Need.BAND}
_EVERYTHING = Selection()
Known = list[dict[str, Any]]
"""For each model by tensor what was counted of its difference: its sigma, or the ends of its band."""


class MergeJob:
    """Merges what is missing.

    Args:
        inputs: what is merged.
        output: where it is written.
        shard_bytes: how much of the weights a file holds at most.
        name: of the subject.

    Attributes:
        fates: what becomes of every tensor.
        written: the model that is written.
        method: how it is merged.
        notes: what is worth knowing, a sentence each.

    Raises:
        FormatError: the models do not fit together.
    """

    def __init__(self, inputs: Inputs, output: Output, shard_bytes: int, name: str) -> None:
        self._inputs = inputs
        self._method = METHODS[inputs.recipe.schema.name]
        self.method = self._method.name
        self.notes = (*inputs.recipe.notes, *(inputs.rows.notes if inputs.rows else ()))
        self.fates = inputs.fates()
        layout = layout_of(self.fates, shard_bytes)
        self._fates = {f.tensor.name: f for f in self.fates if f.kind != "refused" and f.tied is None}
        self._pairings = self._paired()
        prints = [c.fingerprint for c in inputs.operands]
        identity = identity_of("merge", spec_of(inputs), prints, layout, *_rows(inputs.rows))
        self.written = Written(output, layout, identity, KIND, name, inputs.operands)

    def _paired(self) -> tuple[Pairing, ...]:
        """The differences that must be counted."""
        if not _COUNTED & self._method.needs:
            return ()
        base, operands = self._inputs.operands[0], self._inputs.operands
        return tuple(pair(base, operands[n], _EVERYTHING) for n in self._inputs.roles.models)

    def run(self, means: Means) -> None:
        """Write what is missing, and count it.

        Raises:
            GaussmeterError: something failed; what was written is kept, if it can be of use.
        """
        written = self.written
        plan_merge(self.blend(written.inventory(), written.into), means.limits)  # refuses what cannot run
        title = written.output.path.name
        written.run(
            means,
            partial(self._write, replace(means, force=False)),
            lambda: files_of(self._inputs) | {CARD: card(self._inputs, title, self.fates)},
            record_of(self._inputs, self.fates),
        )

    def _write(self, means: Means, inventory: Checkpoint) -> tuple[Standing, int]:
        known = self._known(means.store)
        blend = self.blend(inventory, self.written.into, known)
        missing = [n for n, p in enumerate(self._pairings) if self._is_new(n, p) and not known[n]]
        numbers = [*missing, len(self._pairings)]
        sources = [delta_source(self._pairings[n], _EVERYTHING, means.limits, exact=False) for n in missing]
        sources.append(self.written.source(inventory, self._inputs.operands, spec_of(self._inputs)))

        def plan(chosen: Sequence[int], covered: Sequence[Covered]) -> SharedPlan:
            return plan_merge(blend, means.limits, [numbers[n] for n in chosen], covered)

        standings, nbytes = derive(sources, plan, means, body=partial(MergeBody, self.manner))
        return standings[-1], nbytes

    def _is_new(self, number: int, pairing: Pairing) -> bool:
        """Whether a model is not the same as one before it."""
        return all(p.inventory.uri != pairing.inventory.uri for p in self._pairings[:number])

    def again(self, inventory: Checkpoint, where: Where, limits: Limits, covered: Covered) -> SharedPlan:
        """Plan everything once more but for the spans that are covered, and count nothing."""
        blend = self.blend(inventory, where)
        return plan_merge(blend, limits, [len(blend.pairings)], [covered])

    def blend(self, inventory: Checkpoint, into: Where, known: Known | None = None) -> Blend:
        """Everything that is to be merged.

        Args:
            inventory: the output as a checkpoint.
            into: where each of its tensors is.
            known: what was counted before.
        """
        recipes = tuple(self._recipe(t, into(t), known or []) for t in inventory.tensors)
        inputs = self._inputs
        return Blend(inputs.operands, inputs.roles, self._method.needs, inventory, recipes, self._pairings)

    @property
    def manner(self) -> Manner:
        """How everything is merged."""
        return Manner(self._method.name, self._inputs.roles, self._inputs.recipe.wide)

    def _recipe(self, tensor: TensorInfo, into: Into, known: Known) -> Recipe:
        fate = self._fates[tensor.name]
        if fate.kind == "copied":
            return Recipe(fate, into, None)
        arguments = self._arguments(fate)
        self._check(tensor, arguments)
        found = [own.get(self._first_name(fate)) for own in known]
        if not found or fate.rows is not None or any(f is None for f in found):
            return Recipe(fate, into, arguments)
        if Need.SIGMA in self._method.needs:
            return Recipe(fate, into, arguments | {"sigma": tuple(found)}, counted=True)
        bands = tuple(f or None for f in found)
        return Recipe(fate, into, arguments, bands, counted=True)

    def _check(self, tensor: TensorInfo, arguments: dict[str, Any]) -> None:
        """Refuse parameters that would fail when the tensor is merged."""
        columns = tensor.shape[-1] if tensor.shape else 1
        try:
            if tensor.elements:
                self._method.check(len(self._inputs.roles.models), columns, arguments)
        except ConfigError as error:
            raise ConfigError(error.message, tensor=tensor.name) from error

    def _first_name(self, fate: Fate) -> str:
        assert fate.sources[0] is not None
        return self._inputs.operands[0].tensors[fate.sources[0]].name

    def _arguments(self, fate: Fate) -> dict[str, Any]:
        name = fate.tensor.name
        return self._inputs.recipe.resolve(name, place(name).layer, self._inputs.layers)

    def _known(self, store: Warehouse) -> Known:
        """What the warehouse knows of the differences."""
        if not store.path.exists() or not self._pairings:
            return [{} for _ in self._pairings]
        names = {
            self._first_name(f): f for f in self._fates.values() if f.kind == "merged" and f.rows is None
        }
        with store.reading() as connection:
            return [self._counts(connection, n, names) for n in range(len(self._pairings))]

    def _counts(self, connection: Connection, number: int, names: Mapping[str, Fate]) -> dict[str, Any]:
        subject = find_delta(connection, self._pairings[number].inventory)
        if subject is None:
            return {}
        found: dict[str, Any] = {}
        for name, sketch in sketches_of(connection, subject, list(names)):
            if sketch.count != names[name].tensor.elements:
                continue  # only rows that both have
            if Need.SIGMA in self._method.needs:
                found[name] = sigma_of(sketch)
            else:
                band: tuple[Sought, Sought] | None = band_of(
                    self._method, number, len(self._pairings), sketch, self._arguments(names[name])
                )
                found[name] = band or ()
        return found


def layout_of(fates: Sequence[Fate], shard_bytes: int) -> Layout:
    """Where everything goes that is not left out; what is tied to another tensor is named beside it."""
    kept = [f.tensor for f in fates if f.kind != "refused" and f.tied is None]
    tied = {f.tensor.name: f.tied for f in fates if f.tied is not None}
    return lay_out(kept, shard_bytes, {"format": "pt", **tied})


def spec_of(inputs: Inputs) -> dict[str, Any]:
    """What decides what is written, apart from the bytes of the inputs."""
    recipe = inputs.recipe
    return {
        "method": recipe.schema.name,
        "models": [inputs.operands[n].uri for n in inputs.roles.models],
        "base": inputs.operands[0].uri if recipe.base else None,
        "revisions": [c.revision for c in inputs.operands],
        "parameters": _plain(recipe.shared),
        "own_parameters": [_plain(own) for own in recipe.own],
        "wide": recipe.wide,
        "dtype": recipe.out_dtype,
        "tokenizer": recipe.tokenizer,
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(v) for v in value]
    return asdict(value) if hasattr(value, "filter") else value


def _rows(rows: RowMap | None) -> Iterator[bytes]:
    """Which rows belong together, which follows from files that no fingerprint covers."""
    if rows is not None:
        parts = [(segment.first, segment.count, segment.starts) for segment in rows.segments]
        yield json.dumps([rows.rows, parts, [asdict(token) for token in rows.added]]).encode()
