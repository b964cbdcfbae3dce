"""How the vocabularies of models differ, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.errors import shown
from engine.nouns.vocabulary import Vocabulary, quoted

_EXAMPLES = 3


def compare(vocabularies: Sequence[Vocabulary | None]) -> tuple[str, ...]:
    """Say how vocabularies differ from the first that is known.

    Args:
        vocabularies: the reference's first; those that are not known are passed over.

    Returns:
        one sentence for each that differs.
    """
    known = [v for v in vocabularies if v is not None and v.reason is None]
    return tuple(_difference(known[0], v) for v in known[1:] if v.tokens != known[0].tokens)


def _difference(reference: Vocabulary, other: Vocabulary) -> str:
    ours, theirs = reference.tokens, other.tokens
    more = lacking(ours, theirs)
    less = lacking(theirs, ours)
    moved = sorted((t for t, i in theirs.items() if ours.get(t, i) != i), key=theirs.__getitem__)
    parts = []
    if more:
        parts.append(f"has {counted(more)} that {shown(reference.source)} lacks ({listed(more)})")
    if less:
        whose = "it" if more else shown(reference.source)
        parts.append(f"lacks {counted(less)} that {whose} has ({listed(less)})")
    if moved:
        where = "" if more or less else f" than in {shown(reference.source)}"
        parts.append(f"has other ids{where} for {counted(moved)} ({listed(moved)})")
    *before, last = parts
    return f"{shown(other.source)} {' and '.join([', '.join(before), last] if before else [last])}"


def counted(tokens: Sequence[str]) -> str:
    """How many tokens there are, in words."""
    return f"{len(tokens):,} token{'s' if len(tokens) != 1 else ''}"


def listed(tokens: Sequence[str]) -> str:
    """The first of some tokens, for a message."""
    more = ", ..." if len(tokens) > _EXAMPLES else ""
    return ", ".join(map(quoted, tokens[:_EXAMPLES])) + more


def lacking(ours: Mapping[str, int], theirs: Mapping[str, int]) -> list[str]:
    """Tokens that others have and we lack, in the order of their ids."""
    return sorted((t for t in theirs if t not in ours), key=theirs.__getitem__)
