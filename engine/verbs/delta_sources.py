"""What the subjects of a delta are made of: tuned checkpoints, or adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from engine.errors import ConfigError, FormatError
from engine.nouns.adapters import Adapter
from engine.nouns.records import Checkpoint
from engine.plan import Limits, Selection
from engine.plan.adapters import Stock, take_stock
from engine.plan.delta import plan_delta
from engine.plan.pairing import Pairing, pair
from engine.plan.products import plan_adapters
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
    _require_distinct([p.inventory for p in pairings])
    plan_delta(pairings, limits, exact=exact)

    def plan(numbers: Sequence[int], covered: Sequence[Covered]) -> SharedPlan:
        return plan_delta([pairings[n] for n in numbers], limits, covered, exact=exact)

    return Family([delta_source(p, selection, limits, exact=exact) for p in pairings], plan)


def delta_source(pairing: Pairing, selection: Selection, limits: Limits, *, exact: bool) -> Source:
    """What the difference of two checkpoints is made of."""
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
    adapters: Sequence[Adapter],
    base: Checkpoint | None,
    selection: Selection,
    limits: Limits,
    *,
    exact: bool,
    strict: bool,
) -> Family:
    """Find out what adapters change, and plan once; what cannot run is refused here.

    Raises:
        FormatError, ConfigError, BudgetError: see `take_stock` and `plan_adapters`.
    """
    stocks = [take_stock(one, base, selection) for one in adapters]
    _require_distinct([s.inventory for s in stocks])
    if strict:
        _require_all_counted(stocks)
    plan_adapters(stocks, limits, exact=exact)

    def plan(numbers: Sequence[int], covered: Sequence[Covered]) -> SharedPlan:
        return plan_adapters([stocks[n] for n in numbers], limits, covered, exact=exact)

    return Family([_adapted(s, selection, limits, exact=exact) for s in stocks], plan)


def _adapted(stock: Stock, selection: Selection, limits: Limits, *, exact: bool) -> Source:
    adapter, base = stock.adapter, stock.base
    needed = base if stock.bases else None
    spec = {
        "adapter": adapter.uri,
        "base": needed.uri if needed else None,
        "base_revision": needed.revision if needed else None,
        "made_for": adapter.base,
        "method": adapter.method,
        "r": adapter.r,
        **asdict(selection),
        "exact": exact,
    }
    second = partial(plan_adapters, [stock], limits)
    return Source(
        uri=adapter.uri,
        inventory=stock.inventory,
        kind="adapter",
        name=stock.inventory.name,
        spec=spec,
        parents=(base,) if base else (),
        plan_second=lambda codes: second(refine=codes).tasks,
    )


def _require_all_counted(stocks: Sequence[Stock]) -> None:
    for stock in stocks:
        left_out = [t for t in stock.inventory.tensors if t.coding is None and t.alias_of is None]
        if left_out:
            first = left_out[0]
            message = f"{len(left_out):,} of its tensors give no dW, the first of them this: {first.why}"
            raise FormatError(message, file=stock.adapter.uri, tensor=first.name)


def _require_distinct(inventories: Sequence[Checkpoint]) -> None:
    seen: set[str] = set()
    for inventory in inventories:
        if inventory.fingerprint in seen:
            raise ConfigError("is given twice", file=inventory.uri.partition(" - ")[0])
        seen.add(inventory.fingerprint)
