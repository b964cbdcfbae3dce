"""From an adapter and its base to tasks that write the base with the adapter folded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.errors import FormatError
from engine.merge_methods.apply import OUTPUTS
from engine.nouns.merging import Roles
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Into
from engine.plan.adapters import LACKING, Stock
from engine.plan.fates import Fate, decide
from engine.plan.limits import Limits, require_room
from engine.plan.merge import Blend, Recipe, plan_merge
from engine.plan.products import Cutter, Job, fit_products, matrix_of, row_gaps
from engine.plan.shared import Covered, SharedPlan

_ALONE = Roles(None, ())


@dataclass(frozen=True, slots=True)
class Folding:
    """A base, and what an adapter makes of it.

    Attributes:
        stock: what the adapter changes.
        base: the base.
        inventory: the output as a checkpoint.
        recipes: of its tensors, in their order; of changed ones, where they are written.
        rows: for the ordinals of the inventory that are changed, the row of the stock.
    """

    stock: Stock
    base: Checkpoint
    inventory: Checkpoint
    recipes: tuple[Recipe, ...]
    rows: Mapping[int, int]


def fates_of(stock: Stock, base: Checkpoint) -> list[Fate]:
    """What becomes of every tensor of the base: `merged` where the adapter changes it, `copied` elsewhere.

    A whole tensor that the base lacks, such as the head of a task, has no place in it: it is `refused`, which
    means left out.

    Raises:
        FormatError: something else of the adapter cannot be folded in, or nothing can.
    """
    tensors = stock.inventory.tensors
    heads = [t for i, t in enumerate(tensors) if i not in stock.places and t.why == LACKING]
    left_out = [t for i, t in enumerate(tensors) if i not in stock.places and t.why != LACKING]
    if left_out or len(heads) == len(tensors):
        first = (left_out or heads)[0]
        several = f" (and {len(left_out) - 1:,} more of its tensors)" if len(left_out) > 1 else ""
        message = f"cannot be folded in: {first.why}{several}"
        raise FormatError(message, file=stock.adapter.uri, tensor=first.name)
    changed = set(stock.places.values())
    fates = [Fate(t, "refused", (None,), LACKING) for t in heads]
    for fate in decide((base,), (0,), dtype=None, wide=True):
        ordinal = fate.sources[0]
        if fate.kind == "merged" and fate.tied is None and ordinal not in changed:
            fates.append(replace(fate, kind="copied", reason="the adapter does not change it"))
            continue
        if ordinal in changed and fate.tensor.dtype not in OUTPUTS[:3]:
            dtype = fate.tensor.dtype
            raise FormatError(f"{dtype} weights are not changed", file=base.uri, tensor=fate.tensor.name)
        fates.append(fate)
    return fates


def plan_fold(folding: Folding, limits: Limits, covered: Covered) -> SharedPlan:
    """Cut a folding into tasks: products that are written, and copies.

    Args:
        folding: what is to be done.
        limits: how to cut, and the memory limit.
        covered: by ordinal of the output, the spans that are done.

    Raises:
        ConfigError: a limit makes no sense.
        BudgetError: it would not fit into the memory limit.
    """
    copies = tuple(
        recipe if i not in folding.rows else replace(recipe, arguments=None)
        for i, recipe in enumerate(folding.recipes)
    )
    blend = Blend((folding.base,), _ALONE, frozenset(), folding.inventory, copies)
    written = {i: ((0, t.elements),) for i, t in enumerate(folding.inventory.tensors) if i in folding.rows}
    copied = plan_merge(blend, limits, (), [{**covered, **written}])
    stock = replace(folding.stock, bases=folding.stock.places)
    jobs = []
    for ordinal, row in folding.rows.items():
        matrix = matrix_of(stock.inventory.tensors[row].shape)
        missing = tuple(row_gaps(covered.get(ordinal, ()), matrix))
        if missing and matrix[0] * matrix[1]:
            jobs.append(Job(0, row, ordinal, matrix, missing))
    into: dict[int, Into] = {ordinal: folding.recipes[ordinal].into for ordinal in folding.rows}
    fitted = fit_products([stock], jobs, limits)
    tasks = tuple(Cutter([stock], fitted, into=into).tasks(jobs))
    tasks += tuple(replace(t, key=len(tasks) + i) for i, t in enumerate(copied.tasks))
    each = max((t.projected_bytes for t in tasks), default=0)
    projected = copied.projected_bytes + min(limits.workers, len(tasks)) * (each + limits.worker_bytes)
    require_room(limits, projected, folding.inventory.uri)
    return SharedPlan(tasks, copied.offsets, copied.plans, projected)
