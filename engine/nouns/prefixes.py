"""Which tensor of one model is which of another, when wrappers have lengthened the names of one.

The wrappers are data, in `names.toml`: those of training and tuning (`module.`, `_orig_mod.`,
`base_model.model.`, an inner `.base_layer`), and the model's own name at the front (`model.`, `bert.`,
`language_model.`).
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from engine.nouns.names import LONGEST_NAME, RULES_FILE


def match_names(a: Sequence[str], b: Sequence[str]) -> dict[str, str]:
    """Match the tensors of two models: equal names first, then names that only wrappers tell apart.

    A name whose short form another name of its own model has too is ambiguous, and left alone.

    Args:
        a: names, each once.
        b: names, each once.

    Returns:
        for each name of `a` that has a partner, in the order of `a`, its partner in `b`; each name of `b`
        at most once.
    """
    there = set(b)
    found = {name: name for name in a if name in there}
    for shorten in (unwrapped, bare):
        _match_by(shorten, a, b, found)
    return {name: found[name] for name in a if name in found}


def _match_by(
    shorten: Callable[[str], str], a: Sequence[str], b: Sequence[str], found: dict[str, str]
) -> None:
    """Add the pairs of names without a partner whose short forms are equal, and the only ones."""
    ours, theirs = _unambiguous(shorten, a), _unambiguous(shorten, b)
    taken = set(found.values())
    for short, name in ours.items():
        partner = theirs.get(short)
        if partner is not None and name not in found and partner not in taken:
            found[name] = partner


def _unambiguous(shorten: Callable[[str], str], names: Sequence[str]) -> Mapping[str, str]:
    short = [shorten(name) for name in names]
    times = Counter(short)
    return {s: name for s, name in zip(short, names, strict=True) if times[s] == 1}


def unwrapped(name: str) -> str:
    """Take off what training and tuning wrap around a model and its modules."""
    if len(name) > LONGEST_NAME:
        return name
    return _patterns().wrappers.sub("", name)


@lru_cache(maxsize=1 << 16)
def bare(name: str) -> str:
    """Take off the wrappers, and the model's own name at the front."""
    if len(name) > LONGEST_NAME:
        return name
    return _patterns().front.sub("", unwrapped(name))


class _Patterns(NamedTuple):
    wrappers: re.Pattern[str]
    front: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    tables = tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))["prefix"]
    words = {table["where"]: "|".join(table["words"]) for table in tables}
    flags = re.ASCII | re.DOTALL
    return _Patterns(
        wrappers=re.compile(rf"(?:^|(?<=\.))(?:{words['anywhere']})\.", flags),
        front=re.compile(rf"^(?:(?:{words['front']}|{words['tower']})\.)+", flags),
    )
