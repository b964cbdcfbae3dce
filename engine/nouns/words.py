"""Text from a checkpoint, made fit for reading: nothing in it does anything."""

from __future__ import annotations


def printable(text: str) -> str:
    """Spell out what would do something to a screen: control characters, direction marks, line ends."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a text that has more than so many characters."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"
