"""One adapter folded into its base: from what it changes to the files that are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from engine.errors import ConfigError
from engine.formats.adapters.opening import open_adapter
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.adapters import METHODS, Adapter
from engine.nouns.merging import Roles
from engine.nouns.records import Checkpoint
from engine.plan import Limits, Selection
from engine.plan.adapters import take_stock
from engine.plan.fates import counts
from engine.plan.folding import Folding, fates_of, plan_fold
from engine.plan.merge import Recipe
from engine.plan.shared import Covered, SharedPlan
from engine.storage import Place, locate
from engine.tasks.merge import Manner, MergeBody
from engine.verbs.derive import Means, derive
from engine.verbs.merge_card import beside, page
from engine.verbs.merge_inputs import address_of
from engine.verbs.merge_job import KIND, layout_of
from engine.verbs.merge_output import Output
from engine.verbs.written import CARD, Where, Written, identity_of
from engine.version import __version__
from engine.warehouse.subjects import Standing

MANNER = Manner("linear", Roles(None, (0,)))
"""How tensors are copied that the adapter does not change."""


class FoldJob:
    """Folds what is missing.

    Args:
        adapter: a folder in PEFT's format, or one of ours.
        base: the model that it changes; by default the one that it names.
        output: where the result is written.
        shard_bytes: how much of the weights a file holds at most.
        name: of the subject.

    Attributes:
        fates: what becomes of every tensor of the base.
        written: the model that is written.
        method: what made the adapter.
        notes: what is worth knowing, a sentence each.

    Raises:
        ConfigError: the adapter names no base that is there, or does not fit to it.
        FormatError: something of the adapter cannot be folded in.
    """

    def __init__(self, adapter: str, base: str | None, output: Output, shard_bytes: int, name: str) -> None:
        self._adapter = open_adapter(adapter)
        self._base, self._place = _opened(self._adapter, base)
        self._stock = take_stock(self._adapter, self._base, Selection())
        self.method = METHODS[self._adapter.method]
        self.notes = (self._adapter.note,) if self._adapter.note else ()
        self.fates = fates_of(self._stock, self._base)
        layout = layout_of(self.fates, shard_bytes)
        prints = (self._adapter.fingerprint, self._base.fingerprint)
        identity = identity_of("fold", self._spec(), prints, layout)
        read = (self._base, self._adapter.checkpoint)
        self.written = Written(output, layout, identity, KIND, name, also=read)

    def _spec(self) -> dict[str, Any]:
        return {
            "adapter": self._adapter.uri,
            "adapter_method": self._adapter.method,
            "r": self._adapter.r,
            "base": self._base.uri,
            "revisions": [self._adapter.revision, self._base.revision],
        }

    def run(self, means: Means) -> None:
        """Write what is missing, and count it; errors as for `MergeJob.run`."""
        plan_fold(
            self._folding(self.written.inventory(), self.written.into), means.limits, {}
        )  # refuses what cannot run
        self.written.run(
            means,
            partial(self._write, replace(means, force=False)),
            lambda: beside(self._place) | {CARD: self._card()},
            self._record(),
        )

    def _write(self, means: Means, inventory: Checkpoint) -> tuple[Standing, int]:
        folding = self._folding(inventory, self.written.into)
        source = self.written.source(inventory, (self._base,), self._spec())

        def plan(chosen: Sequence[int], covered: Sequence[Covered]) -> SharedPlan:
            return plan_fold(folding, means.limits, covered[0])

        standings, nbytes = derive([source], plan, means, body=partial(MergeBody, MANNER))
        return standings[0], nbytes

    def again(self, inventory: Checkpoint, where: Where, limits: Limits, covered: Covered) -> SharedPlan:
        """Plan everything once more; arguments as for `MergeJob.again`."""
        return plan_fold(self._folding(inventory, where), limits, covered)

    def _folding(self, inventory: Checkpoint, where: Where) -> Folding:
        fates = {f.tensor.name: f for f in self.fates}
        rows = {ordinal: row for row, ordinal in self._stock.places.items()}
        recipes = tuple(Recipe(fates[t.name], where(t), None) for t in inventory.tensors)
        changed = {}
        for number, recipe in enumerate(recipes):
            source = recipe.fate.sources[0]
            if source in rows:
                changed[number] = rows[source]
        return Folding(self._stock, self._base, inventory, recipes, changed)

    def _record(self) -> dict[str, Any]:
        return {
            "engine_version": __version__,
            "adapter": self._adapter.uri,
            "base": self._base.uri,
            "method": self._adapter.method,
            "inputs": [
                {"uri": i.uri, "revision": i.revision, "fingerprint": i.fingerprint}
                for i in (self._base, self._adapter)
            ],
            "tensors": dict(counts(self.fates)),
        }

    def _card(self) -> bytes:
        says = f"`{self._adapter.uri}` ({self.method}) folded into its base"
        lines = [f"- base: `{self._base.uri}`", f"- adapter: `{self._adapter.uri}`"]
        names = [self._base.name, self._adapter.name]
        return page(self.written.output.path.name, says, names, self.fates, lines)


def _opened(adapter: Adapter, base: str | None) -> tuple[Checkpoint, Place]:
    uri = base or adapter.base
    if not uri:
        raise ConfigError("does not say which model it changes; name it with --base", file=adapter.uri)
    place = locate(address_of(uri))
    checkpoint = open_checkpoint(place.uri, place)
    require_sound(checkpoint)
    return checkpoint, place
