"""Which row of each model belongs to which row of the merged model.

Rows of an embedding and of a head belong to tokens. Where vocabularies differ, the same row is another
token's, so rows are matched by token: the merged model has the tokens of the reference, which is the base or
else the first model, or those of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from engine.errors import FormatError, shown
from engine.nouns.vocabulary import MOST_ROWS, NewToken, Vocabulary
from engine.plan.vocabularies import compare, counted, lacking, listed

TOKENIZER = "tokenizer.json"
"""The only file to which tokens can be added."""

_HINT = "set 'tokenizer: base' or 'tokenizer: union' to match rows by token"
_ABSENT = -1

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that a model has for tokens.

    Attributes:
        model: where it lies, for messages.
        rows: how many rows its embedding has.
        vocabulary: its tokens; None if there is no file that lists them.
    """

    model: str
    rows: int
    vocabulary: Vocabulary | None

    @property
    def known(self) -> Vocabulary | None:
        """Its tokens; None also if their file is not read."""
        return self.vocabulary if self.vocabulary is not None and self.vocabulary.reason is None else None


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of the merged model that are consecutive in every model that has them.

    Attributes:
        first: the first of them.
        count: how many.
        starts: for the reference, then for each other model, its row that belongs to the first; None where it
            has no such row.
    """

    first: int
    count: int
    starts: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class RowMap:
    """Where the rows of the merged model come from.

    Attributes:
        rows: how many there are.
        segments: all of them, each row once, in order; as few segments as possible.
        added: tokens that the reference's tokenizer must be given, in the order of their ids.
        notes: what is worth knowing, a sentence each.
    """

    rows: int
    segments: tuple[Segment, ...]
    added: tuple[NewToken, ...] = ()
    notes: tuple[str, ...] = ()


def map_rows(tables: Sequence[Table], mode: str | None) -> RowMap:
    """Find the rows of every model that belong together.

    A token without a row in a model is absent there. A row without a token, as padding is, belongs to the
    same row of a model that has no token there either.

    Args:
        tables: the reference's first; at least one.
        mode: None if rows must be equal in number and in meaning; `base` for the reference's rows; `union`
            for these and, behind its last token, tokens that only other models have.

    Raises:
        FormatError: the models do not go together in this mode.
    """
    if mode is None:
        return _identity(tables, _require_equal(tables))
    notes = _require_known(tables, mode)
    reference = tables[0].known
    if reference is None:
        return _identity(tables, notes)
    sides = [_Side(table, table.known or reference) for table in tables]
    added = tuple(_new_tokens(sides)) if mode == "union" else ()
    notes += filter(None, (*(side.beyond() for side in sides), _whole(added, sides)))
    starts = _starts(sides, added, grow=mode == "union")
    return RowMap(starts.shape[1], tuple(_segments(starts)), added, tuple(notes))


class _Side:
    """A model, and the vocabulary that its rows follow."""

    def __init__(self, table: Table, vocabulary: Vocabulary) -> None:
        self.table, self.tokens, self.vocabulary = table, vocabulary.tokens, vocabulary
        self.ids = np.fromiter(self.tokens.values(), np.int64, len(self.tokens))

    def rows_of(self, tokens: Mapping[str, int], added: Sequence[NewToken]) -> Rows:
        """Its rows of the reference's tokens and of new ones, -1 for those it has no row for."""
        get = self.tokens.get
        known = map(get, tokens, repeat(_ABSENT))
        old = self.ids if tokens is self.tokens else np.fromiter(known, np.int64, len(tokens))
        new = np.array([get(a.token, _ABSENT) for a in added], np.int64)
        found = np.concatenate((old, new))
        found[found >= self.table.rows] = _ABSENT
        return found

    def beyond(self) -> str | None:
        """A note on tokens that it lists and has no rows for."""
        rows = self.table.rows
        if self.table.known is None or not (self.ids >= rows).any():
            return None
        tokens = sorted((t for t, i in self.tokens.items() if i >= rows), key=self.tokens.__getitem__)
        what = f"{counted(tokens)} ({listed(tokens)}): it has {rows:,} rows"
        return f"{shown(self.table.model)} has no row for {what}"


def _require_equal(tables: Sequence[Table]) -> list[str]:
    """Refuse models that differ in their tokens, and return notes on those whose tokens are not known."""
    first, *others = tables
    faults = [*compare([table.vocabulary for table in tables])]
    for other in others:
        if other.rows != first.rows:
            rows = f"{other.rows:,} rows for tokens, {shown(first.model)} has {first.rows:,}"
            faults.append(f"{shown(other.model)} has {rows}")
    if faults:
        raise FormatError(f"the models differ in their tokens: {'; '.join(faults)}; {_HINT}")
    if not any(table.vocabulary for table in tables):
        return []
    return [_assumed(table) for table in tables if table.known is None]


def _require_known(tables: Sequence[Table], mode: str) -> list[str]:
    """Refuse models whose rows cannot be matched, and return notes on those whose tokens are not known."""
    first, *others = tables
    if first.known is None and any(other.known for other in others):
        what = f"{_unknown(first)}, so that rows cannot be matched by 'tokenizer: {mode}'"
        raise FormatError(what, file=first.model)
    unknown = [other for other in others if other.known is None]
    for other in unknown:
        if other.rows != first.rows:
            raise FormatError(
                f"{_unknown(other)}, and its {other.rows:,} rows for tokens are not the {first.rows:,} of "
                f"{shown(first.model)}, so that they cannot be matched",
                file=other.model,
            )
    return [_assumed(other) for other in unknown]


def _assumed(table: Table) -> str:
    return f"{shown(table.model)} {_unknown(table)}; its rows are taken for those of the others"


def _unknown(table: Table) -> str:
    """Why its tokens are not known."""
    found = table.vocabulary
    return "has no vocabulary" if found is None else f"has no known vocabulary: {found.file} {found.reason}"


def _identity(tables: Sequence[Table], notes: Sequence[str]) -> RowMap:
    rows = tables[0].rows
    segments = (Segment(0, rows, (0,) * len(tables)),) if rows else ()
    return RowMap(rows, segments, notes=tuple(notes))


def _new_tokens(sides: Sequence[_Side]) -> Iterator[NewToken]:
    """Tokens that the reference lacks and another model has a row for, numbered on from its last.

    Raises:
        FormatError: they cannot be added to its tokenizer.
    """
    reference = sides[0].vocabulary
    new: dict[str, bool] = {}
    for side in sides[1:]:
        for token in lacking(reference.tokens, side.tokens):
            if side.tokens[token] < side.table.rows:
                new.setdefault(token, token in side.vocabulary.special)
    if not new:
        return
    where = shown(reference.source)
    if reference.file != TOKENIZER:
        raise FormatError(
            f"'tokenizer: union' would give it {counted(list(new))} more ({listed(list(new))}), which "
            f"only a {TOKENIZER} can be given, and that is not there",
            file=where,
        )
    first = max(reference.tokens.values(), default=-1) + 1
    if first + len(new) > MOST_ROWS:
        raise FormatError(f"its ids leave no room for {counted(list(new))} more", file=where)
    for number, (token, special) in enumerate(new.items(), first):
        yield NewToken(token, number, special)


def _whole(added: Sequence[NewToken], sides: Sequence[_Side]) -> str | None:
    """A note on new tokens that were ordinary pieces, because as added tokens they act otherwise."""
    whole = frozenset[str]().union(*(side.vocabulary.added for side in sides[1:]))
    pieces = [new.token for new in added if new.token not in whole]
    if not pieces:
        return None
    return (
        f"{len(pieces):,} of the {len(added):,} new tokens are ordinary pieces in their own models "
        f"({listed(pieces)}); as added tokens they are found only as they are spelled, and before all others"
    )


def _starts(sides: Sequence[_Side], added: Sequence[NewToken], *, grow: bool) -> Rows:
    """The row of every model (one a line) for every row of the merged model, -1 where it has none.

    Args:
        sides: the reference first.
        added: tokens that the merged model has beside the reference's.
        grow: whether it may have more rows than the reference.
    """
    numbers = np.concatenate((sides[0].ids, np.array([a.id for a in added], np.int64)))
    own = np.stack([side.rows_of(sides[0].tokens, added) for side in sides])
    rows = _grown(sides[0], numbers[(own >= 0).any(axis=0)]) if grow else sides[0].table.rows
    inside = numbers < rows
    starts = np.full((len(sides), rows), _ABSENT)
    starts[:, numbers[inside]] = own[:, inside]
    without = np.ones(rows, np.bool_)
    without[numbers[inside]] = False
    for side, line in zip(sides, starts, strict=True):
        free = without.copy()
        free[side.table.rows :] = False
        free[side.ids[side.ids < rows]] = False
        line[free] = np.flatnonzero(free)
    return starts


def _grown(reference: _Side, numbers: Rows) -> int:
    """How many rows there are with tokens of such ids, for each of which some model has a row.

    Raises:
        FormatError: between them are rows that no model has.
    """
    rows = reference.table.rows
    behind = numbers[numbers >= rows]
    if not behind.size:
        return rows
    grown = int(behind.max()) + 1
    if missing := grown - rows - behind.size:
        raise FormatError(
            f"has {rows:,} rows and a last token with the id {reference.ids.max():,}, and no model has the "
            f"{missing:,} that are missing, so that nothing can be added behind it",
            file=reference.table.model,
        )
    return grown


def _segments(starts: Rows) -> Iterator[Segment]:
    """Cut rows where some model's row does not follow the one before."""
    before, after = starts[:, :-1], starts[:, 1:]
    follows = (after == np.where(before < 0, _ABSENT, before + 1)).all(axis=0)
    rows = starts.shape[1]
    firsts = np.concatenate(([0], np.flatnonzero(~follows) + 1)) if rows else np.empty(0, np.int64)
    counts = np.diff(firsts, append=rows).tolist()
    own = starts[:, firsts]
    lines = own.astype(object)
    lines[own < 0] = None
    for first, count, line in zip(firsts.tolist(), counts, zip(*lines.tolist(), strict=True), strict=True):
        yield Segment(first, count, line)
