"""What the subjects of a delta are made of: tuned checkpoints, or adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from engine.errors import ConfigError
from engine.nouns.records import Checkpoint
from engine.plan import Limits, Selection
from engine.plan.delta import plan_delta
from engine.plan.pairing import Pairing, pair
from engine.plan.shared import Covered, SharedPlan
from engine.verbs.derive import Source


@dataclass(frozen=True, slots=True)
class Family:
    """Subjects that have a base in common.

    Attributes:
        sources: what each is made of.
        plan: see `engine.verbs.derive.derive`.
    """

    sources: list[Source]
    plan: Callable[[Sequence[int], Sequence[Covered]], SharedPlan]


def checkpoint_family(
    base: Checkpoint,
    tuned: Sequence[Checkpoint],
    selection: Selection,
    limits: Limits,
    *,
    exact: bool,
    strict: bool,
) -> Family:
    """Pair tuned checkpoints with their base, and plan once; what cannot run is refused here.

    Raises:
        FormatError, ConfigError, BudgetError: see `pair` and `plan_delta`.
    """
    pairings = [pair(base, one, selection, strict=strict) for one in tuned]
    seen: set[str] = set()
    for pairing in pairings:
        if pairing.inventory.fingerprint in seen:
            raise ConfigError("is given twice", file=pairing.tuned.uri)
        seen.add(pairing.inventory.fingerprint)
    plan_delta(pairings, limits, exact=exact)

    def plan(numbers: Sequence[int], covered: Sequence[Covered]) -> SharedPlan:
        return plan_delta([pairings[n] for n in numbers], limits, covered, exact=exact)

    return Family([_source(p, selection, limits, exact=exact) for p in pairings], plan)


def _source(pairing: Pairing, selection: Selection, limits: Limits, *, exact: bool) -> Source:
    base, tuned = pairing.base, pairing.tuned
    spec = {"base": base.uri, "tuned": tuned.uri, **asdict(selection), "exact": exact}
    spec |= {"base_revision": base.revision, "tuned_revision": tuned.revision}
    second = partial(plan_delta, [pairing], limits)
    return Source(
        uri=tuned.uri,
        inventory=pairing.inventory,
        kind="delta",
        name=pairing.inventory.name,
        spec=spec,
        parents=(base, tuned),
        plan_second=lambda codes: second(refine=codes).tasks,
    )


def adapter_family(
    adapters: Sequence[str | Path],
    base: Checkpoint | None,
    selection: Selection,
    limits: Limits,
    *,
    exact: bool,
    strict: bool,
) -> Family:
    """Open adapters, and plan once."""
    raise ConfigError("adapters cannot be read yet")
