"""The tokens of a model, as the files beside its weights list them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_ROWS = 1 << 31
"""Ids are below this; no table has so many rows, and tokenizers keeps ids in 32 bits."""

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens and the rows of the embedding that are theirs.

    Attributes:
        tokens: id by token, spelled as the file spells it (`Ġthe`, `##ing`, `▁the`); ids are all different,
            from 0 to below `MOST_ROWS`, with or without holes.
        source: the file that lists them, for messages.
        added: those that are cut out of a text before the rest of it is split.
        special: those that are marked as special, as far as the file tells; all of them are in `added`.
        reason: why the tokens are not known, though there is a file; None when they are.
    """

    tokens: Mapping[str, int]
    source: str
    added: frozenset[str] = field(default=frozenset())
    special: frozenset[str] = field(default=frozenset())
    reason: str | None = None

    @property
    def file(self) -> str:
        """The name of the file that lists them, without folder or query."""
        return self.source.partition("?")[0].replace("\\", "/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that a tokenizer is to get.

    Attributes:
        token: its spelling.
        id: its row.
        special: whether it is left out when a text is made of tokens.
    """

    token: str
    id: int
    special: bool = False


def quoted(token: str) -> str:
    """A token for a message: its first 20 characters, with what is invisible or turns text around escaped."""
    return repr(token[:_SHOWN]) + ("..." if len(token) > _SHOWN else "")
