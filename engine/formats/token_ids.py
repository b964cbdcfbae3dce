"""Ids of tokens, from files that may contradict themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from engine.errors import FormatError
from engine.nouns.vocabulary import MOST_ROWS, quoted


def numbered(tokens: Sequence[str], file: str) -> dict[str, int]:
    """Number the tokens of a list from 0 on.

    Raises:
        FormatError: a token is there twice.
    """
    ids: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if ids.setdefault(token, number) != number:
            raise _two_ids(token, ids[token], number, file)
    return ids


def united(ids: Mapping[str, object], added: Iterable[tuple[str, object]], file: str) -> dict[str, int]:
    """Put the tokens of a model and those that were added to them together.

    Args:
        ids: ids by token, not looked at yet.
        added: tokens and ids, likewise.
        file: for messages.

    Raises:
        FormatError: an id is no whole number from 0 to below `MOST_ROWS`, a token has two ids, an id two
            tokens, or a token is not valid Unicode.
    """
    every = dict(ids)
    for token, number in added:
        if token in every and every[token] != number:
            raise _two_ids(token, every[token], number, file)
        every[token] = number
    _check_unicode(every, file)
    checked = _checked(every, file)
    if len(set(checked.values())) < len(checked):
        owner: dict[int, str] = {}
        for token, number in checked.items():
            if (other := owner.setdefault(number, token)) != token:
                both = f"{quoted(other)} and {quoted(token)}"
                raise FormatError(f"the tokens {both} have the same id {number:,}", file=file)
    return checked


def _checked(ids: dict[str, object], file: str) -> dict[str, int]:
    """The same ids, all of which must be numbers of rows."""
    checked = cast(dict[str, int], ids)
    if not ids:
        return checked
    numbers = checked.values()
    if set(map(type, numbers)) == {int} and min(numbers) >= 0 and max(numbers) < MOST_ROWS:
        return checked
    bad = next(t for t, n in ids.items() if not (type(n) is int and 0 <= n < MOST_ROWS))
    message = f"the id of the token {quoted(bad)} is {_short(ids[bad])}, expected 0 to {MOST_ROWS - 1:,}"
    raise FormatError(message, file=file)


def _check_unicode(tokens: Iterable[str], file: str) -> None:
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError as error:
        raise FormatError("a token is not valid Unicode: it has an unpaired surrogate", file=file) from error


def _two_ids(token: str, one: object, other: object, file: str) -> FormatError:
    return FormatError(f"the token {quoted(token)} has the ids {_short(one)} and {_short(other)}", file=file)


def _short(value: object) -> str:
    text = f"{value:,}" if type(value) is int else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
