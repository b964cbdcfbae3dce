"""One edit, from the fates of a model's tensors to the files that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from engine.nouns.editing import Band, Edit
from engine.nouns.merging import Need, Roles
from engine.nouns.records import Checkpoint, TensorInfo
from engine.nouns.tasks import Into
from engine.plan import Limits, Selection
from engine.plan.editing import alone, decide_edits
from engine.plan.fates import Fate, counts
from engine.plan.merge import Blend, Recipe, plan_merge
from engine.plan.pairing import Pairing, pair
from engine.plan.shared import Covered, SharedPlan
from engine.tasks.editing import EditBody, band_of
from engine.tasks.tally import read_tallies
from engine.verbs.delta_sources import delta_source
from engine.verbs.derive import Means, Source, derive
from engine.verbs.edit_inputs import Wish
from engine.verbs.merge_card import beside, page
from engine.verbs.merge_job import layout_of
from engine.verbs.merge_output import Output
from engine.verbs.written import CARD, Where, Written, identity_of
from engine.version import __version__
from engine.warehouse.deltas import find_delta, sketches_of
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Standing, find_complete

KIND = "edit"
_EVERYTHING = Selection()
Bands = Mapping[int, Band]
"""By ordinal of the model's tensors the intervals that follow from what the warehouse knows."""


class EditJob:
    """Edits what is missing.

    Args:
        wish: what is edited.
        output: where it is written.
        shard_bytes: how much of the weights a file holds at most.
        name: of the subject.

    Attributes:
        fates: what becomes of every tensor.
        written: the model that is written.
        kept: of each tensor that is edited, how many elements were kept, and how many not; known at the end.

    Raises:
        FormatError, ConfigError: see `decide_edits` and `pair`.
    """

    def __init__(self, wish: Wish, output: Output, shard_bytes: int, name: str) -> None:
        self._wish = wish
        self.fates = decide_edits(wish.model, wish.base, wish.choice)
        layout = layout_of(self.fates, shard_bytes)
        self._fates = {f.tensor.name: f for f in self.fates if f.kind != "refused" and f.tied is None}
        self._roles = Roles(None if wish.base is None else 1, (0,))
        self._pairing = self._paired()
        identity = identity_of("edit", wish.spec(), [c.fingerprint for c in wish.operands], layout)
        self.written = Written(output, layout, identity, KIND, name, wish.operands)
        self.kept: dict[str, tuple[int, int]] = {}

    def _paired(self) -> Pairing | None:
        """What must be counted."""
        if not self._wish.change.counted:
            return None
        model, base = self._wish.model, self._wish.base
        return alone(model) if base is None else pair(base, model, _EVERYTHING)

    @property
    def manner(self) -> tuple[Edit, Roles]:
        """How everything is edited; see `EditBody`."""
        return self._wish.change, self._roles

    def run(self, means: Means) -> None:
        """Write what is missing, and count it; errors as for `MergeJob.run`."""
        written = self.written
        plan_merge(self.blend(written.inventory(), written.into), means.limits)  # refuses what cannot run
        written.run(
            means,
            partial(self._write, replace(means, force=False)),
            lambda: beside(self._wish.place),
            self._record(),
            last=self._last,
        )
        if written.status == "unchanged":
            record = written.output.record()
            self.kept = dict(record.kept) if record is not None else {}

    def _write(self, means: Means, inventory: Checkpoint) -> tuple[Standing, int]:
        known = self._known(means.store)
        blend = self.blend(inventory, self.written.into, known)
        numbers = [*([0] if self._pairing is not None and not known else []), len(blend.pairings)]
        sources = [self._counted(means) for n in numbers if n < len(blend.pairings)]
        sources.append(self.written.source(inventory, self._wish.operands, self._wish.spec()))

        def plan(chosen: Sequence[int], covered: Sequence[Covered]) -> SharedPlan:
            return plan_merge(blend, means.limits, [numbers[n] for n in chosen], covered)

        standings, nbytes = derive(sources, plan, means, body=partial(EditBody, *self.manner))
        return standings[-1], nbytes

    def _counted(self, means: Means) -> Source:
        """The subject that is counted along: the model itself, as a scan does, or its difference."""
        assert self._pairing is not None
        if self._wish.base is not None:
            return delta_source(self._pairing, _EVERYTHING, means.limits, exact=False)
        model = self._wish.model
        return Source(
            uri=model.uri,
            inventory=model,
            kind="checkpoint",
            name=model.name,
            spec={**asdict(_EVERYTHING), "exact": False},
            parents=(),
            plan_second=lambda codes: (),
        )

    def again(self, inventory: Checkpoint, where: Where, limits: Limits, covered: Covered) -> SharedPlan:
        """Plan everything once more but for the spans that are covered, and count nothing."""
        blend = self.blend(inventory, where)
        return plan_merge(blend, limits, [len(blend.pairings)], [covered])

    def blend(self, inventory: Checkpoint, into: Where, known: Bands | None = None) -> Blend:
        """Everything that is to be edited; arguments as for `MergeJob.blend`."""
        recipes = tuple(self._recipe(t, into(t), known or {}) for t in inventory.tensors)
        needs = frozenset([Need.SIGMA] if self._pairing is not None else [])
        pairings = () if self._pairing is None else (self._pairing,)
        itself = self._pairing is not None and self._wish.base is None
        return Blend(self._wish.operands, self._roles, needs, inventory, recipes, pairings, itself)

    def _recipe(self, tensor: TensorInfo, into: Into, known: Bands) -> Recipe:
        fate = self._fates[tensor.name]
        if fate.kind == "copied":
            return Recipe(fate, into, None)
        band = self._wish.change.band() if self._pairing is None else known.get(_first(fate))
        return Recipe(fate, into, {} if band is None else {"band": band}, counted=band is not None)

    def _known(self, store: Warehouse) -> Bands:
        """The intervals of what the warehouse has counted."""
        if self._pairing is None or not store.path.exists():
            return {}
        rows = self._pairing.inventory.tensors
        wanted = {_first(f): f.tensor.elements for f in self._fates.values() if f.kind == "merged"}
        names = {rows[n].name: m.tuned for n, m in self._pairing.matches.items() if m.tuned in wanted}
        find = find_complete if self._wish.base is None else find_delta
        with store.reading() as connection:
            subject = find(connection, self._pairing.inventory)
            found = () if subject is None else sketches_of(connection, subject, list(names))
            return {
                names[name]: band_of(self._wish.change, sketch)
                for name, sketch in found
                if sketch.count == wanted[names[name]]
            }

    def _last(self) -> tuple[dict[str, bytes], dict[str, Any]]:
        """What is only known when everything is written: how much was kept."""
        sizes = {f.tensor.name: f.tensor.elements for f in self._fates.values() if f.kind == "merged"}
        found = read_tallies(self.written.output.path, sizes)
        self.kept = {name: (kept, sizes[name] - kept) for name, kept in found.items()}
        return {CARD: self._card()}, {"kept": self.kept}

    def _record(self) -> dict[str, Any]:
        return {
            "engine_version": __version__,
            "edit": self._wish.spec(),
            "inputs": [
                {"uri": c.uri, "revision": c.revision, "fingerprint": c.fingerprint}
                for c in self._wish.operands
            ],
            "tensors": dict(counts(self.fates)),
            "copied": {f.tensor.name: f.reason for f in self.fates if f.kind == "copied"},
            "refused": {f.tensor.name: f.reason for f in self.fates if f.kind == "refused"},
        }

    def _card(self) -> bytes:
        wish = self._wish
        kept, others = (sum(pair[i] for pair in self.kept.values()) for i in (0, 1))
        what = "zeroed" if wish.base is None else "set to the base's"
        lines = [
            f"- {kept:,} elements kept, {others:,} {what}",
            *([f"- base: `{wish.base.uri}`"] if wish.base else []),
            f"- model: `{wish.model.uri}`",
        ]
        names = [c.name for c in wish.operands]
        says = f"Edited: {wish.change.words}" + (", of what differs from the base" if wish.base else "")
        return page(self.written.output.path.name, says, names, self.fates, lines, done="edited")


def _first(fate: Fate) -> int:
    """The ordinal of the model's tensor."""
    assert fate.sources[0] is not None
    return fate.sources[0]
