"""Which modules of a model are adapted, found by their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.nouns.names import place
from engine.nouns.tuning import FUSED, MODULES

_WORDS = {role: (word,) for word, role in MODULES.items()} | FUSED


def words_of(tensor: str) -> tuple[str, ...]:
    """The words of `MODULES` for what a weight holds, () for weights that are not adapted.

    Args:
        tensor: its name, with `.weight`.
    """
    if not tensor.endswith(".weight"):
        return ()
    found = place(tensor)
    return _WORDS.get(found.role, ()) if found.layer is not None else ()


def targets(matrices: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The weights that are adapted, in their order.

    Args:
        matrices: names of the model's matrices.
        wanted: words of `MODULES`.
    """
    return [name for name in matrices if (words := words_of(name)) and set(words) <= set(wanted)]


def misfits(matrices: Mapping[str, tuple[int, ...]], wanted: Sequence[str], *, explicit: bool) -> list[str]:
    """Why a model does not have the modules that are wanted; () if it does.

    Args:
        matrices: shapes of its matrices, by name.
        wanted: words of `MODULES`.
        explicit: whether each of them was asked for, or all by default.
    """
    groups = {words_of(name) for name in matrices} - {()}
    there = [word for word in MODULES if any(word in group for group in groups)]
    if not there:
        return ["has no modules that can be adapted: none of its matrices is called as those of a layer are"]
    faults = []
    cut = [group for group in sorted(groups) if set(group) & set(wanted) and not set(group) <= set(wanted)]
    for group in cut:
        faults.append(f"keeps {', '.join(group)} in one matrix, which is adapted as a whole or not at all")
    lacking = [word for word in wanted if word not in there]
    if lacking and (explicit or len(lacking) == len(wanted)):
        faults.append(f"has no {', '.join(lacking)}; it has {', '.join(there)}")
    return faults
