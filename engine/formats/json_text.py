"""Changing single values of a JSON text, and not a byte beside them.

Whoever wrote a file keeps its layout, the order of its keys and the spelling of its numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_INDENTED = re.compile(r"\{\r?\n( +)")


class Member(NamedTuple):
    """A value of an object.

    Attributes:
        value: what it is.
        start: where its text begins.
        end: where that ends.
    """

    value: Any
    start: int
    end: int


class Change(NamedTuple):
    """A stretch of a text, and what takes its place."""

    start: int
    end: int
    text: str


def members(text: str, start: int = 0) -> dict[str, Member]:
    """Find the members of an object.

    Args:
        text: a JSON text that was parsed before, so that it is known to be valid.
        start: where the object begins, or the space before it.
    """
    decode = json.JSONDecoder().raw_decode
    found: dict[str, Member] = {}
    at = _after_space(text, _after_space(text, start) + 1)
    while text[at] != "}":
        key, at = decode(text, at)
        at = _after_space(text, _after_space(text, at) + 1)
        value, end = decode(text, at)
        found[key] = Member(value, at, end)
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def inserted(text: str, start: int, key: str, value: str) -> Change:
    """Put a member before all others of an object.

    Args:
        text: a valid JSON text.
        start: where the object begins.
        key: the member's key.
        value: the text of its value.
    """
    inside = start + 1
    first = _after_space(text, inside)
    layout = text[inside:first]
    colon = ":" if _is_dense(text) else ": "
    if text[first] == "}":
        return Change(inside, inside, f"{json.dumps(key)}{colon}{value}")
    comma = "," if layout or _is_dense(text) else ", "
    return Change(inside, inside, f"{layout}{json.dumps(key)}{colon}{value}{comma}")


def extended(text: str, start: int, end: int, more: list[Any] | dict[str, Any], depth: int) -> Change:
    """Append to a list or to an object.

    Args:
        text: a valid JSON text, whose outermost value is an object.
        start: where the list or object begins.
        end: where it ends.
        more: what to append, at least one entry.
        depth: how many objects and lists it stands in.
    """
    new = dumped(text, more, depth)
    old = text[start : end - 1].rstrip()
    if len(old) == 1:
        return Change(start, end, new)
    comma = "," if _indent(text) or _is_dense(text) else ", "
    return Change(start, end, f"{old}{comma}{new[1:]}")


def dumped(text: str, value: Any, depth: int) -> str:
    """Write a value in the layout that a text has.

    Args:
        text: a valid JSON text, whose outermost value is an object.
        value: what to write.
        depth: how many objects and lists it will stand in.
    """
    indent = _indent(text)
    escaped = text.isascii() and "\\u" in text
    if indent:
        return json.dumps(value, indent=indent, ensure_ascii=escaped).replace("\n", "\n" + indent * depth)
    return json.dumps(value, ensure_ascii=escaped, separators=(",", ":") if _is_dense(text) else None)


def changed(text: str, changes: Iterable[Change]) -> str:
    """Apply changes, none of which overlap."""
    parts, at = [], 0
    for start, end, new in sorted(changes):
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _indent(text: str) -> str:
    """The spaces before the keys of the outermost object, "" for a text of one line."""
    match = _INDENTED.match(text, _after_space(text, 0))
    return match[1] if match else ""


def _is_dense(text: str) -> bool:
    """Whether there is no space behind colons and commas."""
    first = text.find('":')
    return first >= 0 and text[first + 2 : first + 3] != " " and not _indent(text)
